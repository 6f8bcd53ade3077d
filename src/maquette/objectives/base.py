"""What every objective shares: the wiring of a model, a loss, an optimiser and a schedule as a LightningModule.

An objective says what its loss is and what it can be judged by. What happens around a step (measuring, saving,
showing) is the training room's business; nothing here logs, so nothing here makes a step wait.
"""

import abc
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from maquette.optimization import Optimization, Schedule
from maquette.optimization.groups import parameter_kinds

__all__ = ["Metrics", "Objective", "Optimization"]

Metrics = dict[str, Tensor]
"""What a step is judged by beside its loss: full name -> scalar on the model's device, detached. A step may leave some
out; means are over those that have them."""


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
        self._last_rate = optimization.learning_rate
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
        """AdamW's rate in optimiser step `step` (from 0); of PyTorch's schedulers, which do not say it for any step,
        the one of the last step."""
        schedule = self.optimization.schedule
        if isinstance(schedule, Schedule):
            return self.optimization.learning_rate * schedule.step_factor(step, self.optimization.batch_size_tokens)
        return self._last_rate

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        return self.optimization.configure(self.model, self._kinds)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Once after each optimiser step."""
        self._last_rate = self.optimization.shown_rate(scheduler.optimizer)
        super().lr_scheduler_step(scheduler, metric)

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
        clip = self.optimization.clip
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
