"""Looks at every step's loss: stops a run whose loss is NaN or infinite, and reports a loss spike with its documents.

Lightning's `SpikeDetection` raises and writes a list of batch numbers; it knows neither the documents of a batch nor
the loss scaler's overflows.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from maquette.artifacts import StageError
from maquette.artifacts.progress import say
from maquette.model.sharding import own_part
from maquette.training.callbacks.base import RunCallback, is_log_step

_MEMORY = 0.99
"""The running mean forgets a step's loss to a third in a hundred steps."""

_CALM = 20
"""Steps before spikes are looked for: the first losses only fall."""

_OVERFLOWS = 20
"""So many overflows one after the other are no search for a scale any more: 2^20 times too large."""


class LossSpikeGuard(RunCallback):
    """Checks the loss that `training_step` returns, and the module's `gradient_norm` where it has one; a loss above
    `factor` times its running mean is reported as a spike."""

    def __init__(self, factor: float = 3.0) -> None:
        super().__init__()
        self.factor = factor
        self.guard: LossGuard | None = None
        self._state: dict[str, float] | None = None
        self._losses: list[torch.Tensor] = []
        self._unsettled: list[tuple[int, torch.Tensor, torch.Tensor | None]] = []
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.run is not None
        name, data = self.run.name, trainer.datamodule  # type: ignore[attr-defined]
        describe = getattr(data, "describe", None) or (lambda step: f"batch {step:,} of the loader")
        self.guard = LossGuard(
            self.factor if getattr(pl_module, "watches_spikes", True) else math.inf, describe,
            (lambda message: say(f"{name}: {message}")) if trainer.is_global_zero else (lambda _: None),
            scaled=trainer.precision == "16-mixed",
        )  # fmt: skip
        if self._state is not None:
            self.guard.load_state_dict(self._state)
        self._step = trainer.global_step
        self._on_cpu = trainer.strategy.root_device.type == "cpu"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._losses.append(loss.detach() * trainer.accumulate_grad_batches)
        if trainer.global_step == self._step:
            return  # still accumulating
        step = self._step = trainer.global_step
        if self._losses:
            mean = self._losses[0] if len(self._losses) == 1 else torch.stack(self._losses).mean()
            self._unsettled.append((step, mean, getattr(pl_module, "gradient_norm", None)))
            self._losses.clear()
        # A GPU is waited for once in log_every_n_steps steps.
        if self._on_cpu or is_log_step(trainer, step):
            self._settle()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._settle()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._settle()

    @property
    def spikes(self) -> int:
        return 0 if self.guard is None else self.guard.spikes

    def state_dict(self) -> dict[str, Any]:
        self._settle()
        return {} if self.guard is None else dict(self.guard.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None

    def _settle(self) -> None:
        for step, loss, norm in self._unsettled:
            assert self.guard is not None
            self.guard.check(step, loss.item(), None if norm is None else norm.item())
        self._unsettled.clear()


def first_broken(weights: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite, in the part of it that is here."""
    return next((name for name, value in weights if not torch.isfinite(own_part(value)).all()), None)


def diverged(what: str, step: int) -> StageError:
    """Of a run whose update has broken its weights, which no loss has shown yet."""
    return StageError(
        f"Training has diverged: after step {step:,} {what} is NaN or infinite.",
        "A lower optimizer.lr, a longer scheduler.warmup or a smaller trainer.gradient_clip_val usually helps.",
    )


class LossGuard:
    """`describe(step)` names the text of a step (from 1); `report` takes what there is to say. With `scaled` losses
    (`precision=16-mixed`) a gradient now and then overflows by design: the step is left out and the scale halved."""

    def __init__(
        self,
        spike_factor: float,
        describe: Callable[[int], str],
        report: Callable[[str], None],
        *,
        scaled: bool = False,
    ) -> None:
        self.spike_factor = spike_factor
        self.scaled = scaled
        self._overflows = 0
        self.spikes = 0
        self._describe = describe
        self._report = report
        self._mean = 0.0
        self._steps = 0

    def check(self, step: int, loss: float, gradient_norm: float | None = None) -> None:
        """Raises `StageError` where the loss or the gradient's norm of a step is not a finite number."""
        if self.scaled and gradient_norm is not None:
            self._overflows = 0 if math.isfinite(gradient_norm) else self._overflows + 1
            if self._overflows < _OVERFLOWS:
                gradient_norm = None
        for name, value in (("loss", loss), ("gradient's norm", gradient_norm)):
            if value is not None and not math.isfinite(value):
                raise StageError(
                    f"Training has diverged: the {name} of step {step:,} is {value}. "
                    f"Its batch: {self._describe(step)}.",
                    "The last checkpoint is good. A lower optimizer.lr, a longer scheduler.warmup or a smaller "
                    "trainer.gradient_clip_val usually helps; look at the documents too.",
                )
        # A factor of a mean says nothing where losses may be negative, as those of policies.
        if self._steps >= _CALM and self._mean > 0 and loss > self.spike_factor * self._mean:
            self.spikes += 1
            self._report(
                f"loss spike at step {step:,}: {loss:.3f} (running mean {self._mean:.3f}). "
                f"Its batch: {self._describe(step)}"
            )
        memory = min(_MEMORY, self._steps / (self._steps + 1))
        self._mean = memory * self._mean + (1 - memory) * loss
        self._steps += 1

    def state_dict(self) -> dict[str, float]:
        return {"mean": self._mean, "steps": self._steps, "spikes": self.spikes}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self._mean, self._steps, self.spikes = state["mean"], int(state["steps"]), int(state["spikes"])
