"""What a person sees of training: a bar with loss, speed and time left; without a terminal a line now and then.

Lightning's `RichProgressBar` and `TQDMProgressBar` would be cheap enough (0.08 and 0.02 ms a step, ours 0.01:
`benchmarks/callback_cost.py`), but write a bar into files too, know no tokens, and can't be one of many runs. Use one
instead with `callbacks.progress._target_=...`.
"""

import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from maquette.artifacts.progress import console, duration, listeners, say
from maquette.training.callbacks.base import RunCallback
from maquette.training.callbacks.throughput import Throughput

_REFRESH = 0.25
"""Seconds between two updates of the bar."""

_LINES = 15.0
"""Seconds between two lines where there is no terminal."""

_REPORT = 0.5
"""Seconds between two reports to somebody who shows many runs at once."""


class Progress(RunCallback):
    """Shows the run. Calls are cheap: most of them only look at the clock."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._validation = ""
        self._losses: list[torch.Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.run is not None
        self._step, self._shown = trainer.global_step, time.monotonic()
        self._first: tuple[int, float] | None = None
        self._visible = trainer.is_global_zero
        self._steps = trainer.max_steps if trainer.max_steps > 0 else self.run.steps
        self._speed = next((one for one in trainer.callbacks if isinstance(one, Throughput)), None)  # type: ignore[attr-defined]
        if not self._visible:
            return
        if listeners:
            listeners[-1](self._step, self._steps)
        elif console.is_terminal:
            self._shown = 0.0
            columns = [
                TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn(),
                TextColumn("{task.fields[loss]}"), TextColumn("{task.fields[speed]}"), TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
            ]  # fmt: skip
            self._bar = RichProgress(*columns, console=console, transient=True, refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task(
                self.run.name, total=self._steps, completed=self._step, loss="", speed="", left=""
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._visible:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            self._losses.append(loss)
        if trainer.global_step == self._step:
            return  # still accumulating
        self._step = trainer.global_step
        losses, self._losses = self._losses, []
        now = time.monotonic()
        self._first = self._first or (self._step, now)
        pause = _REPORT if listeners else _LINES if self._bar is None else _REFRESH
        if now - self._shown < pause and not (listeners and self._step == self._steps):
            return
        self._shown = now
        if listeners:
            listeners[-1](self._step, self._steps)
            return
        mean = float(torch.stack(losses).mean()) * trainer.accumulate_grad_batches if losses else None
        self._show(mean)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The newest validation loss stands beside the training loss."""
        loss = trainer.callback_metrics.get("validation/loss")
        self._validation = "" if loss is None else f" (validation {float(loss):.3f})"

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, loss: float | None) -> None:
        assert self.run is not None
        speed = ""
        seconds: float | None = None
        tokens_per_second = 0.0 if self._speed is None else self._speed.tokens_per_second
        if tokens_per_second:  # known after the first steps, which are slow
            speed = f"{tokens_per_second:,.0f} tokens/s"
            seconds = (self._steps - self._step) * self.run.batch_size_tokens / tokens_per_second
        elif self._first is not None and self._step > self._first[0]:  # of large models those take minutes
            step, began = self._first
            seconds = (self._steps - self._step) * (self._shown - began) / (self._step - step)
        left = "" if seconds is None else f"{duration(seconds)} left"
        text = "" if loss is None else f"loss {loss:.3f}{self._validation}"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._step, loss=text, speed=speed, left=left)
        else:
            say(
                f"{self.run.name}: step {self._step:,} of {self._steps:,} ({self._step / self._steps:.0%}), "
                + ", ".join(part for part in (text, speed, left) if part)
            )
