"""Learning rate schedules, as pure functions of the tokens seen.

Tokens, not steps: the same schedule at any batch size. The rate of an optimiser step is that of its middle token, so
the first step of a warm-up is not wasted at a rate of zero, nor the last one of a decay. PyTorch's schedulers, which
count steps: `optimization.TorchSchedule`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import Node, arguments_of, build, import_target, target_of
from maquette.optimization.config import NOT_ARGUMENTS

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

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

    A schedule of one's own is a subclass that is made from `total` (and from `warmup`, a share of the tokens, where it
    has such an argument; `warmup: null` in its node is the recipe's) and says its `factor`.
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

    def attach(self, optimizer: "Optimizer", batch_size_tokens: int) -> "LRScheduler":
        """PyTorch's scheduler that gives each group of `optimizer` this share of its rate."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda step: self.step_factor(step, batch_size_tokens))


class LinearSchedule(Schedule):
    """Warm-up, then a straight line down (Defazio et al. 2023). `warmup`: share of the tokens."""

    def __init__(self, total: int, *, warmup: float, final: float = 0.0) -> None:
        super().__init__(total, round(warmup * total), 0, "linear", final)


class CosineSchedule(Schedule):
    """Warm-up, then half a cosine down (Loshchilov and Hutter 2017). `warmup`: share of the tokens."""

    def __init__(self, total: int, *, warmup: float, final: float = 0.1) -> None:
        super().__init__(total, round(warmup * total), 0, "cosine", final)


class WSDSchedule(Schedule):
    """Warm-up, stable, decay over the last share `decay` (Hu et al. 2024, MiniCPM, section 4).

    Raises `ConfigError` where warm-up and decay overlap.
    """

    def __init__(
        self, total: int, *, warmup: float, decay: float = 0.2, decay_shape: str = "linear", final: float = 0.0
    ) -> None:
        rising, falling = round(warmup * total), round(decay * total)
        if rising + falling > total:
            raise ConfigError(
                f"scheduler.warmup={warmup:g} and scheduler.decay={decay:g} overlap.",
                "They are shares of the token budget; together at most 1.",
            )
        super().__init__(total, rising, total - rising - falling, decay_shape, final)


class ConstantSchedule(Schedule):
    """Warm-up, then stable. `warmup`: share of the tokens."""

    def __init__(self, total: int, *, warmup: float) -> None:
        rising = round(warmup * total)
        super().__init__(total, rising, total - rising)


def is_token_schedule(node: Node) -> bool:
    """Whether a node's `_target_` is a `Schedule`, and not one of PyTorch's schedulers."""
    target = import_target(target_of(node), key="scheduler._target_")
    return isinstance(target, type) and issubclass(target, Schedule)


def build_schedule(node: Node, total: int, warmup: float) -> Schedule:
    """The schedule that a node names, over `total` tokens, of which the share `warmup` warms up.

    Raises `ConfigError` where its target is no `Schedule`.
    """
    target = import_target(target_of(node), key="scheduler._target_")
    if not is_token_schedule(node):
        raise ConfigError(
            f"scheduler: {target_of(node)} is not a function of the tokens seen.", "Use scheduler=linear."
        )
    known = {"warmup": warmup} if "warmup" in arguments_of(target) else {}
    leave_out = NOT_ARGUMENTS if known else (*NOT_ARGUMENTS, "warmup")
    schedule: Schedule = build(node, total, key="scheduler", leave_out=leave_out, **known)
    return schedule
