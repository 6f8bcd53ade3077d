"""Parts of a model as a user would write them."""

import torch
import torch.nn.functional as F
from torch import nn

from maquette.model.transformer import Attention, rotate


def squared_relu(values):
    return F.relu(values).square()


class GatedSilu(nn.Module):
    gated = True

    def forward(self, values):
        return F.silu(values)


class Snake(nn.Module):
    """x + sin^2(a x) / a with a learned a."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor([0.5]))

    def forward(self, values):
        return values + torch.sin(self.a * values).square() / self.a


class OurAttention(Attention):
    """Ours, under a user's name."""

    keeps_cache = True

    def __init__(self, config, layer):
        super().__init__(config)


class PlainAttention(nn.Module):
    """Multi-head attention, without a cache."""

    def __init__(self, config, layer):
        super().__init__()
        self.heads, self.width = config.num_attention_heads, config.width_of_head
        self.query, self.key, self.value, self.output = (
            nn.Linear(config.hidden_size, config.hidden_size, bias=False) for _ in range(4)
        )

    def forward(self, hidden, *, rotation=None, mask=None):
        query, key, value = (
            layer(hidden).unflatten(-1, (self.heads, self.width)) for layer in (self.query, self.key, self.value)
        )
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask, is_causal=mask is None
        )
        return self.output(mixed.transpose(1, 2).flatten(2))


class StatedAttention(PlainAttention):
    def flops(self, sequence_length):
        return 1000 * sequence_length


class Narrow(PlainAttention):
    def forward(self, hidden, *, rotation=None, mask=None):
        return hidden[..., :1]


class Averages(nn.Module):
    """Each token's hidden state is the mean of the embeddings up to it, through one layer."""

    lr_multiplier = 2.0

    def __init__(self, width, vocab_size):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.layer = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, tokens, *, segments=None):
        embedded = self.embedding(tokens)
        length = tokens.size(1)
        seen = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
        if segments is not None:
            seen = seen & (segments[:, :, None] == segments[:, None, :])
        weights = seen.float() / seen.float().sum(dim=-1, keepdim=True)
        return torch.tanh(self.layer(weights @ embedded)) * self.scale


def averages(size, vocab_size, *, extra=0):
    width = max(4, size // vocab_size) + extra
    return Averages(width, vocab_size)


class Gru(nn.Module):
    """A whole model with a head of its own and no segments."""

    def __init__(self, size, vocab_size, sequence_length):
        super().__init__()
        width = max(4, size // (2 * vocab_size))
        self.embedding = nn.Embedding(vocab_size, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.readout = nn.Linear(width, vocab_size, bias=False)
        self.positions = nn.Parameter(torch.zeros(sequence_length, width))

    @property
    def head_weight(self):
        return self.readout.weight

    def forward(self, tokens, *, cache=None):
        hidden, _ = self.gru(self.embedding(tokens) + self.positions[: tokens.size(1)])
        return hidden


def no_module(size, vocab_size):
    return "a model"


def no_sizes(**settings):
    return nn.Identity()


def fails(size, vocab_size):
    raise RuntimeError("too small")


def flat(size, vocab_size):
    return _Flat(vocab_size)


class _Flat(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 4)

    def forward(self, tokens):
        return self.embedding(tokens).sum(-1)
