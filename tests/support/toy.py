"""A model as small as one can be that has every kind of parameter, and one step of it."""

import torch
from torch import nn


class Toy(nn.Module):
    """The shape of a language model without its insides."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 11, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = hidden + torch.tanh(layer(hidden))
        return self.head(self.norm(hidden))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> float:
    tokens = torch.randint(0, 11, (8, 5), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    return loss.item()
