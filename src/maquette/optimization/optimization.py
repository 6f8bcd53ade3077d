"""How the weights of a run move: an optimiser and a schedule as the config names them, with the recipe's numbers."""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer

from maquette.artifacts.nodes import Node, node_values
from maquette.model.parametrization import STANDARD, Parametrization
from maquette.optimization.groups import Kinds
from maquette.optimization.optimizers import build_optimizer, optimizer_of
from maquette.optimization.schedules import Schedule, build_schedule, is_token_schedule
from maquette.optimization.torch_schedules import TorchSchedule


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

    def configure(self, model: nn.Module, kinds: Kinds | None = None) -> OptimizerLRSchedulerConfig:
        """What a LightningModule's `configure_optimizers` returns, for all of a model."""
        optimizer = build_optimizer(
            model,
            self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=self.fused,
            parametrization=self.parametrization,
            kinds=kinds,
        )
        return self._scheduled(optimizer)

    def configure_groups(self, groups: list[dict[str, Any]]) -> OptimizerLRSchedulerConfig:
        """The same for groups that are made already."""
        optimizer = optimizer_of(
            groups,
            self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=self.fused,
        )
        return self._scheduled(optimizer)

    def _scheduled(self, optimizer: Any) -> OptimizerLRSchedulerConfig:
        scheduler = self.schedule.attach(optimizer, self.batch_size_tokens)
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
