"""What every objective shares: a model built from its description, a loss, an optimiser and a schedule, as a
LightningModule.

An objective says what its loss is and what validation averages. Values of a step stay on the device until a log step
asks for them: each `self.log` costs about 0.45 ms (Lightning 2.6), so it is called at log steps alone.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from maquette.data.process_group import of_all_processes
from maquette.model.architecture import describe_model
from maquette.model.loading import (
    build_model,
    initial_regions,
    is_drawn_by_name,
    leave_out_base,
    put_back_base,
)
from maquette.model.sharding import clip_gradient_norm
from maquette.optimization import Optimization, Schedule
from maquette.optimization.groups import parameter_kinds

__all__ = ["Metrics", "Objective", "Optimization"]

Metrics = dict[str, Tensor]
"""What a step is judged by beside its loss: full name -> scalar on the model's device, detached. A step may leave some
out; means are over those that have them."""

_COUNTS = ("tokens", "epochs", "train/learning_rate")
"""Values that only loggers get: no callback has a use for them. So it is with what stands under `experts/layer_`."""


class Objective(LightningModule, abc.ABC):
    """A loss over batches, and how its model's weights follow it.

    `model`: a module, or the description from which `configure_model` builds one (`maquette.model.loading`).
    `optimization`: an `Optimization`, or its `describe()`. Both are hyperparameters of a checkpoint, so that
    `load_from_checkpoint(path)` needs nothing else. `config`: the objective's settings, or their values by name.
    """

    config_class: type[Any]
    """Of the settings."""

    scalar = False
    """Whether its model gives one number per position instead of logits."""

    uses_dropout = True
    """Whether dropout acts while it trains. It may not where log-probabilities of one completion are compared."""

    validates_start = False
    """Whether the model is validated before its first step too: what the run gains is measured from there."""

    watches_spikes = True
    """Whether a loss several times its running mean is news. The losses of reinforcement learning have no such mean."""

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any],
        optimization: Optimization | Mapping[str, Any],
        config: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.config = self.config_class(**settings) if config is None else config
        self.optimization = Optimization.of(optimization)
        self.description = dict(model) if isinstance(model, Mapping) else describe_model(model)
        self.model: Any = None
        self._kinds: Any = None
        self._set_hparams({
            "model": self.description,
            "optimization": self.optimization.describe(),
            **{key: value for key, value in dataclasses.asdict(self.config).items() if key != "_target_"},
        })  # fmt: skip
        self._hparams_initial = dict(self.hparams)
        self.gradient_norm: Tensor | None = None
        self._seen: list[tuple[Tensor, Metrics]] = []
        self._steps: list[dict[str, Tensor]] = []
        self._window: dict[str, list[float]] = {}
        self._step = 0
        self._last_rate = self.optimization.learning_rate
        if isinstance(model, nn.Module):
            self.set_model(model)

    # The model --------------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Builds the model; with a trainer it has its initial weights, else a checkpoint's follow. On the meta device
        it is empty, and `initial_regions` has its weights."""
        if self.model is None:
            weights = self._trainer is not None and torch.get_default_device().type != "meta"
            self.set_model(build_model(self.description, weights=weights, scalar=self.scalar))

    @property
    def builds_empty(self) -> bool:
        """Whether `configure_model` may be called on the meta device: not where a user's code starts weights."""
        ours = type(self).configure_model is Objective.configure_model
        return ours and self.model is None and is_drawn_by_name(self.description)

    def initial_regions(
        self, regions: Callable[[str], tuple[slice, ...]], *, verify: bool
    ) -> Iterator[tuple[str, Tensor]]:
        """The weights that an empty model starts from: of each parameter, by its name here, the region that this
        process keeps. `verify`: whether to check the files that they come from; one of the processes does."""
        prefixed = initial_regions(
            self.description, self.model, lambda name: regions(f"model.{name}"), scalar=self.scalar, verify=verify
        )
        for name, value in prefixed:
            yield f"model.{name}", value
            del value  # before the next is made

    def set_model(self, model: nn.Module) -> None:
        self.model = model
        self._kinds = parameter_kinds(model)  # before anything shards it
        if not self.uses_dropout:
            self.train()

    @property
    def datamodule(self) -> Any:
        """The trainer's; None where it has bare loaders."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def train(self, mode: bool = True) -> "Objective":
        super().train(mode and self.uses_dropout)
        self.training = mode
        return self

    # Training ---------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:
        """The scalar to minimise over a batch, and its metrics."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, metrics = self.loss(batch)
        self._seen.append((loss.detach(), metrics))
        return loss

    def on_train_start(self) -> None:
        self._step = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = self.trainer.global_step
        if step == self._step:
            return  # still accumulating
        self._step = step
        if self._seen:
            self._steps.append(self._mean_of_step())
        if self.is_log_step:
            self.log_values(self._mean_of_window(step))

    @property
    def is_log_step(self) -> bool:
        """Whether the step that has just ended is logged."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return self._step % every == 0 or self._step == self.trainer.max_steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._settle()
        checkpoint["window"] = of_all_processes({name: [*total] for name, total in self._window.items()})
        if self.description.get("adapter"):
            leave_out_base(checkpoint, self.description.get("checkpoint"), self.model)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._window = self._own(checkpoint.get("window", {}))
        put_back_base(
            checkpoint, self.description.get("checkpoint"), lambda: build_model(self.description, scalar=self.scalar)
        )

    def _mean_of_step(self) -> dict[str, Tensor]:
        """Mean loss and metrics of the step's micro-batches, still on the device."""
        seen, self._seen = self._seen, []
        if len(seen) == 1:
            loss, metrics = seen[0]
        else:
            names = dict.fromkeys(name for _, metrics in seen for name in metrics)
            loss = torch.stack([loss for loss, _ in seen]).mean()
            metrics = {
                name: torch.stack([metrics[name] for _, metrics in seen if name in metrics]).mean() for name in names
            }
        values = {"train/loss": loss}
        if self.gradient_norm is not None:
            values["train/gradient_norm"] = self.gradient_norm
        return values | metrics

    def _settle(self) -> None:
        """Turns what steps have shown into numbers."""
        for values in self._steps:
            for name, value in values.items():
                number = value.item()
                if name == "train/gradient_norm" and not math.isfinite(number):
                    continue  # the step was left out by the loss scaler
                total = self._window.setdefault(name, [0.0, 0.0])
                total[0] += number
                total[1] += 1
        self._steps.clear()

    def _own(self, windows: Any) -> dict[str, list[float]]:
        """This process's sums and counts since the last log step from those of all; their means where there were more
        or fewer of them."""
        if isinstance(windows, dict):  # a file of an earlier version has those of one
            windows = [windows]
        processes = 1 if self._trainer is None else self.trainer.world_size
        if len(windows) == processes:
            return dict(windows[self.trainer.global_rank if processes > 1 else 0])
        rows = {name: [window[name] for window in windows] for name in windows[0]}
        return {name: torch.tensor(row, dtype=torch.float64).mean(dim=0).tolist() for name, row in rows.items()}

    def _mean_of_window(self, step: int) -> dict[str, float]:
        """Means since the last log step, over all processes."""
        self._settle()
        means = torch.tensor([total / count for total, count in self._window.values()], dtype=torch.float64)
        if self.trainer.world_size > 1:
            means = self.trainer.strategy.reduce(means.to(self.trainer.strategy.root_device), reduce_op="mean").cpu()
        values = dict(zip(self._window, means.tolist(), strict=True))
        self._window = {}
        return values | {
            "tokens": step * self.optimization.batch_size_tokens,
            "train/learning_rate": self.learning_rate(step - 1),
        }

    def log_values(self, values: Mapping[str, float]) -> None:
        """Sends numbers of the step that has just ended to callbacks (`EarlyStopping`, `ModelCheckpoint`), the progress
        bar and every logger.

        Loggers get them directly: Lightning's own way counts steps from 0, rounds a validation's float64 to float32,
        and leaves out a last window that is shorter than `log_every_n_steps`.
        """
        if self.trainer.sanity_checking:
            return
        for name, value in values.items():
            if name not in _COUNTS and not name.startswith("experts/layer_"):
                self.log(name, value, logger=False, prog_bar=name in ("train/loss", "validation/loss"))
        self._send(values, self.trainer.global_step)

    def _send(self, values: Mapping[str, float], step: int) -> None:
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(values), step=step)

    # Validation -------------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Compiled blocks run eagerly: validation has shapes of its own, and compiling for them would not pay."""
        torch.compiler.set_stance("force_eager")

    def on_validation_end(self) -> None:
        torch.compiler.set_stance("default")

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the processor."""
        if self.trainer.world_size == 1:
            return values
        strategy = self.trainer.strategy
        group = getattr(strategy, "data_group", None)  # others have read the same
        return strategy.reduce(values.to(strategy.root_device), group=group, reduce_op="sum").cpu()

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        """What the model writes now: rows with `prompt` and `text`. The first process calls it."""
        return []

    # The optimiser ----------------------------------------------------------------------------------------------------

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
        """Clips the norm of the whole gradient to `trainer.gradient_clip_val`, and keeps the norm that it had.

        With accumulation it is called once a step, on the gradient of the whole batch.
        """
        if gradient_clip_val is None:
            return
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        norms = [clip_gradient_norm(part.parameters(), gradient_clip_val) for part in self.clipped_parts]
        self.gradient_norm = norms[0]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves a batch's tensors, if they are not there yet: Lightning's own way copies every dataclass it meets."""
        if device.type == "cpu":
            return batch
        if hasattr(batch, "to"):
            return batch.to(device, non_blocking=True)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
