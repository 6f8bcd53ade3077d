"""From logits to the next token: what bends the distribution, and the draw itself. Pure functions on `(B, V)`.

The order in which generation applies them is that of `transformers`: repetition penalty, temperature, top-k, top-p,
min-p. A left-out token's logit becomes minus infinity; no function leaves out the likeliest token.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from maquette.artifacts import ConfigError
from maquette.model.likelihoods import require_finite


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. `temperature=0` is greedy; then `top_k`, `top_p` and `min_p` change nothing."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        bounds = {
            "temperature": (self.temperature, 0.0, 1e6),
            "top_k": (self.top_k, 1, math.inf),
            "top_p": (self.top_p, 0.0, 1.0),
            "min_p": (self.min_p, 0.0, 1.0),
        }
        for name, (value, low, high) in bounds.items():
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name}={value} is out of range.", f"Allowed: from {low:g} to {high:g}.")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(f"repetition_penalty={self.repetition_penalty} is out of range.", "Allowed: above 0.")

    @property
    def greedy(self) -> bool:
        """Also where dividing by the temperature would overflow: the largest logit is then all that is left."""
        return self.temperature < 1e-6

    def words(self) -> str:
        """The settings that have an effect: temperature=0.8, top_p=0.95."""
        names = ("temperature",) if self.greedy else ("temperature", "top_k", "top_p", "min_p")
        return ", ".join(f"{name}={value:g}" for name in names if (value := getattr(self, name)) is not None)


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes tokens that stand in the prompt or were generated already less likely (`penalty` > 1).

    `seen (B, V)` bool. Positive logits are divided by the penalty, negative ones multiplied (Keskar et al. 2019,
    section 4.1, with the sign rule of `transformers`).
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Leaves out all but the `k` likeliest tokens; tokens that tie with the last of them stay (Fan et al. 2018)."""
    if k >= logits.size(-1):
        return logits
    threshold = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < threshold, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the smallest set of likeliest tokens whose probability reaches `p` (nucleus; Holtzman et al. 2020)."""
    if p >= 1.0:
        return logits
    ordered, order = logits.sort(dim=-1, descending=False)
    rest = ordered.softmax(dim=-1).cumsum(dim=-1)
    left_out = rest <= 1.0 - p
    left_out[..., -1] = False
    return logits.masked_fill(left_out.scatter(-1, order, left_out), -math.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Leaves out tokens less likely than `p` times the likeliest one (Nguyen et al. 2024)."""
    probabilities = logits.softmax(dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -math.inf)


def bend(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """The logits that tokens are drawn from: `logits (B, V)` after everything that `sampling` asks for.

    `seen (B, V)` is needed where there is a repetition penalty. Greedy choice takes the largest of the result.
    """
    if sampling.repetition_penalty != 1.0:
        assert seen is not None
        logits = penalize_repetition(logits, seen, sampling.repetition_penalty)
    if sampling.greedy:
        return logits
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits


def distribution(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """The probability with which each token is drawn, `(B, V)` in float64: of the largest logit 1 where it is greedy.

    Arguments as of `bend`; what `draw` makes of `bend`'s logits has these frequencies.
    """
    bent = bend(logits, sampling, seen).double()
    if sampling.greedy:
        return torch.nn.functional.one_hot(bent.argmax(dim=-1), bent.size(-1)).double()
    return bent.softmax(dim=-1)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Draws one token a row by inverting the cumulative distribution: `logits (B, V)`, `uniform (B,)` in [0, 1).

    A row's token depends on that row's logits and number alone, so sampling does not depend on what else is in the
    batch. In float64, so that rare tokens of a large vocabulary keep their probability. What was left out is not drawn.
    Raises `StageError` for logits that are NaN, from which nothing can be drawn.
    """
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:]
    if total.device.type == "cpu":  # elsewhere looking would have to wait; whoever looks at the tokens asks then
        require_finite(total)
    # Rounding may lift u * total to total itself, which no token's interval holds.
    target = torch.minimum(uniform.double()[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    chosen = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    return chosen if total.device.type == "cpu" else chosen.clamp(max=logits.size(-1) - 1)


def uniform_numbers(seed: int, count: int) -> Tensor:
    """The random numbers of one row, `(count,)` in [0, 1), from a generator of its own."""
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
