"""Courses of the learning rate, as pure functions of the tokens seen.

Tokens, not steps: the same course at any batch size. The rate of an optimiser step is that of its middle token, so the
first step of a warm-up is not wasted at a rate of zero, nor the last one of a decay.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from maquette.artifacts import ConfigError
from maquette.optimization.config import SchedulerConfig

_FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    # Haegele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training durations", section 3.1
    "sqrt": lambda x: 1 - math.sqrt(x),
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
}
"""From 1 to 0 as x goes from 0 to 1."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of its peak, over `total` tokens.

    It rises linearly over the first `warmup` tokens, stays at the peak for `stable` tokens, and falls to `final`
    (share of the peak) at the end by `shape`. Beyond the end it stays where it is.
    """

    total: int
    warmup: int
    stable: int
    shape: str = "linear"
    final: float = 0.0

    def factor(self, tokens: float) -> float:
        """Share of the peak rate after `tokens` tokens."""
        if tokens < self.warmup:
            return tokens / self.warmup
        falling = self.total - self.warmup - self.stable
        fallen = tokens - self.warmup - self.stable
        if fallen <= 0 or falling <= 0:
            return 1.0
        return self.final + (1 - self.final) * _FALLS[self.shape](min(fallen / falling, 1.0))

    def step_factor(self, step: int, batch_size_tokens: int) -> float:
        """Share of the peak rate in optimiser step `step` (from 0) of `batch_size_tokens` tokens each."""
        return self.factor((step + 0.5) * batch_size_tokens)


def build_schedule(config: SchedulerConfig, total: int, warmup: float) -> Schedule:
    """The schedule over `total` tokens, of which the share `warmup` warms up.

    - `linear`, `cosine`: warm-up, then down all the way (Defazio et al. 2023; Loshchilov & Hutter 2017).
    - `wsd`: warm-up, stable, decay over the last share `decay` (Hu et al. 2024, MiniCPM, section 4).
    - `constant`: warm-up, then stable.

    Raises `ConfigError` where warm-up and decay overlap.
    """
    rising = round(warmup * total)
    if config.kind in ("linear", "cosine"):
        return Schedule(total, rising, 0, config.kind, config.final)
    if config.kind == "constant":
        return Schedule(total, rising, total - rising)
    falling = round(config.decay * total)
    if rising + falling > total:
        raise ConfigError(
            f"scheduler.warmup={warmup:g} and scheduler.decay={config.decay:g} overlap.",
            "They are shares of the token budget; together at most 1.",
        )
    return Schedule(total, rising, total - rising - falling, config.decay_shape, config.final)
