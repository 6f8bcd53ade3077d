"""What every objective shares: the wiring of a model, a loss, an optimiser and a schedule as a LightningModule.

An objective says what its loss is and what it can be judged by. What happens around a step (measuring, saving,
showing) is the training room's business; nothing here logs, so nothing here makes a step wait.
"""

import abc
import dataclasses
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from maquette.model.parametrization import STANDARD, Parametrization
from maquette.optimization import Schedule, build_optimizer
from maquette.optimization.config import OptimizerConfig
from maquette.optimization.groups import parameter_kinds

Metrics = dict[str, Tensor]
"""What a step is judged by beside its loss: full name -> scalar on the model's device, detached. A step may leave some
out; means are over those that have them."""


@dataclasses.dataclass(frozen=True)
class Optimization:
    """How the weights of a run move. `batch_size_tokens`: tokens of one optimiser step; `fused`, `parametrization`: see
    `build_optimizer`."""

    config: OptimizerConfig
    schedule: Schedule
    learning_rate: float
    weight_decay: float
    batch_size_tokens: int
    fused: bool | None = None
    parametrization: Parametrization = STANDARD


class Objective(LightningModule, abc.ABC):
    """A loss over batches, and how its model's weights follow it.

    What micro-batches show is kept until `take_step` asks for it, once per optimiser step.
    """

    def __init__(self, model: nn.Module, optimization: Optimization) -> None:
        super().__init__()
        self.model = model
        self.optimization = optimization
        self.gradient_norm: Tensor | None = None
        self._shown: list[tuple[Tensor, Metrics]] = []
        self._kinds = parameter_kinds(model)  # before anything shards it

    @abc.abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        """The scalar to minimise over a batch, and its metrics."""

    @abc.abstractmethod
    def judge(self, batch: Any) -> Tensor:
        """What validation averages: one number for each token or example of a batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, metrics = self.loss(batch)
        self._shown.append((loss.detach(), metrics))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.judge(batch)

    def take_step(self) -> tuple[Tensor, Metrics]:
        """Mean loss and metrics of the micro-batches since the last call, still on the device."""
        shown, self._shown = self._shown, []
        if len(shown) == 1:
            return shown[0]
        names = dict.fromkeys(name for _, metrics in shown for name in metrics)
        metrics = {
            name: torch.stack([metrics[name] for _, metrics in shown if name in metrics]).mean() for name in names
        }
        return torch.stack([loss for loss, _ in shown]).mean(), metrics

    def learning_rate(self, step: int) -> float:
        """AdamW's rate in optimiser step `step` (from 0)."""
        plan = self.optimization
        return plan.learning_rate * plan.schedule.step_factor(step, plan.batch_size_tokens)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        plan = self.optimization
        optimizer = build_optimizer(
            self.model,
            plan.config,
            learning_rate=plan.learning_rate,
            weight_decay=plan.weight_decay,
            fused=plan.fused,
            parametrization=plan.parametrization,
            kinds=self._kinds,
        )
        scheduler = LambdaLR(optimizer, lambda step: plan.schedule.step_factor(step, plan.batch_size_tokens))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def clipped_parts(self) -> tuple[nn.Module, ...]:
        """Modules whose gradients are clipped, each by its own norm. The first one's norm is shown."""
        return (self.model,)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the norm of the whole gradient to `optimizer.clip`, and keeps the norm that it had.

        With accumulation it is called once a step, on the gradient of the whole batch.
        """
        clip = self.optimization.config.clip
        if clip is None:
            return
        root = self.trainer.strategy.model
        if isinstance(root, FullyShardedDataParallel):
            self.gradient_norm = root.clip_grad_norm_(clip)
        else:
            norms = [nn.utils.clip_grad_norm_(part.parameters(), clip) for part in self.clipped_parts]
            self.gradient_norm = norms[0]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves a batch's tensors, if they are not there yet: Lightning's own way copies every dataclass it meets."""
        if device.type == "cpu":
            return batch
        return batch.to(device, non_blocking=True)
