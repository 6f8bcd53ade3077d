"""How the weights of a run move: an optimiser and a schedule as the config names them, with the recipe's numbers.

Learning rate schedulers of PyTorch's kind (`scheduler._target_=torch.optim.lr_scheduler.CosineAnnealingLR`, or anyone's
class or function that returns one) are made from an optimiser and stepped once per optimiser step. What such a node
leaves open (null) is filled in from the run: a number of steps, of steps to warm up over, and the peak.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import Node, arguments_of, build, import_target, node_value, node_values, target_of
from maquette.model.parametrization import STANDARD, Parametrization
from maquette.optimization.config import NOT_ARGUMENTS, STEP_COUNTS, WARMUP_COUNTS, plateau_error
from maquette.optimization.groups import Kinds
from maquette.optimization.optimizers import build_optimizer
from maquette.optimization.schedules import Schedule, build_schedule, is_token_schedule


@dataclasses.dataclass(frozen=True)
class TorchSchedule:
    """A scheduler before there is an optimiser. `steps`: of the run; `warmup`: the recipe's share of them."""

    node: Node
    steps: int
    warmup: float = 0.0

    def attach(self, optimizer: Optimizer, batch_size_tokens: int) -> LRScheduler:
        """The scheduler over `optimizer`. Raises `ConfigError` where it can't be built, or is not a scheduler."""
        known = self._filled_in(optimizer)
        scheduler: Any = build(self.node, optimizer, key="scheduler", leave_out=NOT_ARGUMENTS, **known)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise plateau_error()
        if not isinstance(scheduler, LRScheduler):
            raise ConfigError(
                f"scheduler: {target_of(self.node)} makes {type(scheduler).__name__}, which is not an LRScheduler of "
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


@dataclasses.dataclass(frozen=True)
class Optimization:
    """Plain values, so that a checkpoint can hold them as hyperparameters.

    `optimizer`, `scheduler`: nodes, dataclasses or dicts. The numbers beside them are the resolved ones, whatever the
    nodes leave to the recipe. `steps`, `batch_size_tokens`: optimiser steps of the run and tokens of each; `warmup`:
    share of them; `fused`, `parametrization`: see `build_optimizer`.
    """

    optimizer: Node
    scheduler: Node
    learning_rate: float
    weight_decay: float
    steps: int
    batch_size_tokens: int
    warmup: float = 0.0
    fused: bool | None = None
    parametrization: Parametrization = STANDARD

    @cached_property
    def schedule(self) -> Schedule | TorchSchedule:
        if is_token_schedule(self.scheduler):
            return build_schedule(self.scheduler, self.steps * self.batch_size_tokens, self.warmup)
        return TorchSchedule(self.scheduler, self.steps, self.warmup)

    def shown_rate(self, optimizer: Optimizer) -> float:
        """The rate of the first group whose peak is the whole rate: in muP, and with a value function, not every one's
        is. PyTorch's schedulers keep the peak as `initial_lr`, the cyclic ones as `max_lr`."""
        peaks = [group.get("max_lr", group.get("initial_lr")) for group in optimizer.param_groups]
        place = peaks.index(self.learning_rate) if self.learning_rate in peaks else 0
        return float(optimizer.param_groups[place]["lr"])

    def configure(
        self, model: nn.Module, kinds: Kinds | None = None, more: Sequence[dict[str, Any]] = ()
    ) -> OptimizerLRSchedulerConfig:
        """What a LightningModule's `configure_optimizers` returns, for all of a model and `more` groups."""
        optimizer = build_optimizer(
            model,
            self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=self.fused,
            parametrization=self.parametrization,
            kinds=kinds,
            more=more,
        )
        scheduler: Any = self.schedule.attach(optimizer, self.batch_size_tokens)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def describe(self) -> dict[str, Any]:
        """As plain containers; `of` reads them."""
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        return fields | {
            "optimizer": node_values(self.optimizer),
            "scheduler": node_values(self.scheduler),
            "parametrization": dataclasses.asdict(self.parametrization),
        }

    @classmethod
    def of(cls, described: "Optimization | Mapping[str, Any]") -> "Optimization":
        if isinstance(described, cls):
            return described
        assert isinstance(described, Mapping)
        return cls(**{**described, "parametrization": Parametrization(**described["parametrization"])})
