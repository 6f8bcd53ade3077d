"""Everything that happens around a step, as one Lightning callback.

Lightning calls it once a micro-batch; unless a step has just ended it returns at once, and most steps only add a few
numbers. Losses stay on the device: a GPU is waited for once in `log_steps` steps. Nothing is sent through `self.log`,
which costs half a millisecond a call.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from maquette.objectives import Objective
from maquette.objectives.base import Metrics
from maquette.objectives.iterations import of_all_processes
from maquette.tracking import RunLog
from maquette.training import random_state
from maquette.training.checkpoints import CheckpointFolder
from maquette.training.config import TrainerConfig
from maquette.training.display import Display
from maquette.training.guard import LossGuard
from maquette.training.history import History
from maquette.training.interruption import Interruption
from maquette.training.speed import Stopwatch, TimedBatches


@dataclass(frozen=True)
class Course:
    """The run as the monitor sees it. `flops_per_token` of training; `peak_flops` a second of all devices together;
    `steps_per_epoch` where the run has several epochs; `kept_steps`: after which a checkpoint is saved for others;
    `judges_start`: whether the model is validated before its first step too."""

    steps: int
    batch_size_tokens: int
    flops_per_token: float
    peak_flops: float
    validation_steps: frozenset[int]
    steps_per_epoch: int | None = None
    kept_steps: frozenset[int] = frozenset()
    judges_start: bool = False


@dataclass
class Instruments:
    """What the monitor reads and writes. `history` is None beside the first process; `validate(trainer, step)` gives
    values to record; `sample(step)` lets the model write."""

    batches: TimedBatches
    checkpoints: CheckpointFolder
    guard: LossGuard
    display: Display
    log: RunLog
    history: History | None
    interruption: Interruption
    validate: Callable[[Trainer, int], dict[str, float]]
    sample: Callable[[int], None]


@dataclass
class _Shown:
    """What one step has shown: tensors until somebody needs the numbers."""

    step: int
    loss: Tensor
    norm: Tensor | None
    metrics: Metrics


class Monitor(Callback):
    """Measures, guards, records, validates, saves, and stops when asked to. `interrupted` says that it was asked."""

    def __init__(self, course: Course, settings: TrainerConfig, instruments: Instruments) -> None:
        self.course, self.settings, self.tools = course, settings, instruments
        self.interrupted = False
        self._seconds_before, self._began = 0.0, time.monotonic()
        self._step = 0
        self._unsettled: list[_Shown] = []
        self._window: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._random: list[dict[str, Any]] | None = None
        self._last = (0.0, 0.0)

    # Lightning's hooks ------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tools.interruption.listen()  # again: Lightning has put its own handlers in place
        self._step = trainer.global_step
        self._on_cpu = trainer.strategy.root_device.type == "cpu"
        if self._random is not None:
            random_state.restore(self._random[trainer.global_rank % len(self._random)])
        self._began = self._saved = time.monotonic()
        if self.course.judges_start and self._step == 0:
            self._validate(trainer, 0)
        self.stopwatch = Stopwatch(self.tools.batches, trainer.strategy.root_device)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.stopwatch.backward_done(self._ends_window(self._step + 1))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # still accumulating
        assert isinstance(pl_module, Objective)
        step = self._step = trainer.global_step
        ends_window = self._ends_window(step)
        self.stopwatch.step_done(ends_window)
        loss, metrics = pl_module.take_step()
        self._unsettled.append(_Shown(step, loss, pl_module.gradient_norm, metrics))
        if self._on_cpu or ends_window:
            self._settle()
        if ends_window:
            self._report(trainer, pl_module, step)
        self.tools.display.update(step, *self._last)
        validates = step in self.course.validation_steps
        if validates:
            self._validate(trainer, step)
        saves, stops = self._wishes(trainer, step, ends_window)
        saves = saves or step in self.course.kept_steps
        if saves or stops or step == self.course.steps:
            self._save(trainer, step)
        if validates or saves or stops:
            self.stopwatch.start()
        if stops and step < self.course.steps:
            self.interrupted = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "window": self._window,
            "counts": self._counts,
            "guard": self.tools.guard.state_dict(),
            "seconds": self.seconds_so_far,
            "random": of_all_processes(random_state.capture()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._window, self._counts = state_dict["window"], state_dict["counts"]
        self.tools.guard.load_state_dict(state_dict["guard"])
        self._seconds_before = state_dict["seconds"]
        self._random = state_dict["random"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning counts micro-batches; with other devices the same steps have another number of them."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        step = checkpoint["global_step"]
        in_epoch = (step - 1) % (self.course.steps_per_epoch or self.course.steps) + 1
        for counts, steps in ((progress["total"], step), (progress["current"], in_epoch)):
            done = steps * trainer.accumulate_grad_batches
            counts.update(ready=done, started=done, processed=done, completed=done - 1)

    @property
    def seconds_so_far(self) -> float:
        """How long the run has trained, all its parts together."""
        return self._seconds_before + time.monotonic() - self._began

    # What they do -----------------------------------------------------------------------------------------------------

    def _ends_window(self, step: int) -> bool:
        return step % self.settings.log_steps == 0 or step == self.course.steps

    def _settle(self) -> None:
        """Turns what steps have shown into numbers, and has the guard look at each."""
        for shown in self._unsettled:
            values = {"train/loss": shown.loss.item()}
            if shown.norm is not None:
                values["train/gradient_norm"] = shown.norm.item()
            self.tools.guard.check(shown.step, values["train/loss"], values.get("train/gradient_norm"))
            if not math.isfinite(values.get("train/gradient_norm", 0.0)):
                del values["train/gradient_norm"]  # the step was left out: see the guard
            values |= {name: value.item() for name, value in shown.metrics.items()}
            for name, value in values.items():
                self._window[name] = self._window.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1
            self._last = (values["train/loss"], self._last[1])
        self._unsettled.clear()

    def _report(self, trainer: Trainer, objective: Objective, step: int) -> None:
        """A point on every curve: means over the window and over processes, and speed."""
        sums = [value / self._counts[name] for name, value in self._window.items()]
        means = torch.tensor(sums, dtype=torch.float64)
        if trainer.world_size > 1:
            means = trainer.strategy.reduce(means.to(trainer.strategy.root_device), reduce_op="mean").cpu()
        values = dict(zip(self._window, means.tolist(), strict=True))
        self._window, self._counts = {}, {}
        speed = self.stopwatch.take()
        tokens_per_second = self.course.batch_size_tokens / speed.seconds if speed.seconds else 0.0
        self._last = (values["train/loss"], tokens_per_second)
        self._record(
            step,
            values
            | {
                "tokens": step * self.course.batch_size_tokens,
                "train/learning_rate": objective.learning_rate(step - 1),
                "speed/tokens_per_second": tokens_per_second,
                "speed/mfu": tokens_per_second * self.course.flops_per_token / self.course.peak_flops,
                "speed/step_ms": 1e3 * speed.seconds,
                "speed/data_ms": 1e3 * speed.data,
                "speed/model_ms": 1e3 * speed.model,
                "speed/optimizer_ms": 1e3 * speed.optimizer,
            },
        )

    def _validate(self, trainer: Trainer, step: int) -> None:
        values = self.tools.validate(trainer, step)
        self._record(step, values)
        self.tools.display.validated(values.get("validation/loss"))
        self.tools.sample(step)

    def _record(self, step: int, values: dict[str, float]) -> None:
        if self.tools.history is not None:
            self.tools.history.note(step, values)
            self.tools.log.log_metrics(values, step)

    def _wishes(self, trainer: Trainer, step: int, ends_window: bool) -> tuple[bool, bool]:
        """Whether to save, and whether to stop, after this step. Several processes ask each other at windows' ends."""
        stops = self.tools.interruption.requested
        if self.settings.checkpoint_steps is not None:
            saves = step % self.settings.checkpoint_steps == 0
        else:
            saves = time.monotonic() - self._saved >= 60 * self.settings.checkpoint_minutes
        if trainer.world_size == 1:
            return saves, stops
        if not ends_window:
            return saves and self.settings.checkpoint_steps is not None, False
        wishes = torch.tensor([float(saves), float(stops)], device=trainer.strategy.root_device)
        wishes = trainer.strategy.reduce(wishes, reduce_op="sum")
        return bool(wishes[0] > 0), bool(wishes[1] > 0)

    def _save(self, trainer: Trainer, step: int) -> None:
        """Checkpoint, curves and record agree: all of them are on disk up to this step."""
        self._settle()
        if self.tools.history is not None:
            self.tools.history.flush()
            self.tools.log.flush()
        trainer.save_checkpoint(self.tools.checkpoints.path(step))
        if trainer.is_global_zero:
            self.tools.checkpoints.seal(step, {"tokens": step * self.course.batch_size_tokens})
        self._saved = time.monotonic()
