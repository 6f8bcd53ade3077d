"""A model block and a whole model. `maquette.model.custom_parts` says what each has to have."""

import torch
from torch import nn


class Snake(nn.Module):
    """model.activation=stranger.model.Snake: x + sin^2(a x) / a (Ziyin et al. 2020), with a learned a."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(1))

    def forward(self, values):
        return values + torch.sin(self.a * values).square() / self.a


class Gru(nn.Module):
    """A recurrent language model. The head is put on top; parameters and FLOPs are counted without running it."""

    lr_multiplier = 8.0  # its best learning rate over that of a transformer as wide

    def __init__(self, vocab_size: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.gru = nn.GRU(width, width, layers, batch_first=True)

    def forward(self, tokens):
        return self.gru(self.embedding(tokens))[0]


def build(size: int, vocab_size: int, layers: int = 2) -> Gru:
    """About `size` parameters in core and head: vocab_size x width + layers x 6 width^2."""
    half = vocab_size / (12 * layers)
    return Gru(vocab_size, max(4, round((half**2 + size / (6 * layers)) ** 0.5 - half)), layers)
