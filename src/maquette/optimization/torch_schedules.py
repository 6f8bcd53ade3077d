"""Learning rate schedulers of PyTorch's kind: made from an optimiser, and stepped once per optimiser step.

`scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR`, or anyone's class or function that returns one. What
such a node leaves open (null) is filled in from the run: a number of steps, of steps to warm up over, and the peak.
"""

import dataclasses
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from maquette.artifacts import ConfigError
from maquette.artifacts.nodes import Node, arguments_of, build, node_value, target_of
from maquette.artifacts.targets import import_target
from maquette.optimization.config import NOT_ARGUMENTS, STEP_COUNTS, WARMUP_COUNTS, plateau_error


@dataclasses.dataclass(frozen=True)
class TorchSchedule:
    """A scheduler before there is an optimiser. `steps`: of the run; `warmup`: the recipe's share of them."""

    node: Node
    steps: int
    warmup: float = 0.0

    def attach(self, optimizer: Optimizer, batch_size_tokens: int) -> LRScheduler:
        """The scheduler over `optimizer`. Raises `ConfigError` where it can't be built, or is no scheduler."""
        known = self._filled_in(optimizer)
        scheduler: Any = build(self.node, optimizer, key="scheduler", leave_out=NOT_ARGUMENTS, **known)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise plateau_error()
        if not isinstance(scheduler, LRScheduler):
            raise ConfigError(
                f"scheduler: {target_of(self.node)} makes {type(scheduler).__name__}, which is no LRScheduler of "
                "PyTorch's.",
                "Derive it from torch.optim.lr_scheduler.LRScheduler, or from maquette.optimization.Schedule.",
            )
        return scheduler

    def _filled_in(self, optimizer: Optimizer) -> dict[str, Any]:
        """What the node leaves open and the run knows. Every group has a peak of its own."""
        run = (
            dict.fromkeys(STEP_COUNTS, self.steps)
            | dict.fromkeys(WARMUP_COUNTS, round(self.warmup * self.steps))
            | {"max_lr": [group["lr"] for group in optimizer.param_groups]}
        )
        arguments = arguments_of(import_target(target_of(self.node), key="scheduler._target_"))
        others = {"epochs", "steps_per_epoch"}  # OneCycleLR's other way to say how many steps there are
        if any(node_value(self.node, key) is not None for key in others):
            run.pop("total_steps")
        return {
            name: run[name]
            for name, argument in arguments.items()
            if name in run
            and node_value(self.node, name) is None
            and (argument.default in (None, argument.empty) or name in self._keys)
        }

    @property
    def _keys(self) -> set[str]:
        return set(self.node) if isinstance(self.node, dict) else {one.name for one in dataclasses.fields(self.node)}
