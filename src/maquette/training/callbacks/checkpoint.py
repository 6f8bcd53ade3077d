"""Checkpoints from which a run goes on exactly.

Why not Lightning's `ModelCheckpoint` (2.6): saving by time it may fall between two micro-batches of a step, and half a
gradient is lost; it saves before the validation of the same step, whose curves are lost when the run is killed there;
it saves neither at the last step nor when asked to stop. It goes well beside this one: add it to keep the best model,
`+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint +callbacks.best.monitor=validation/loss`.
"""

import datetime
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from maquette.artifacts import ConfigError
from maquette.data.process_group import of_all_processes
from maquette.training.callbacks.base import RunCallback, is_log_step
from maquette.training.checkpoint_io import CheckpointFolder, capture_random_state, restore_random_state


class RunCheckpoint(RunCallback, Checkpoint):
    """Saves at the end of a step: every `every_n_train_steps` steps if given, else every `train_time_interval` (a
    mapping such as `{minutes: 2}`), and at the last step, at steps that others go on from, and when somebody wants
    training to stop, after which it stops. The newest `save_last_k` files stay.

    It also keeps what a checkpoint of Lightning's lacks for an exact resume: random numbers of every process.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        every_n_train_steps: int | None = None,
        train_time_interval: datetime.timedelta | Mapping[str, float] | None = None,
        save_last_k: int = 2,
    ) -> None:
        super().__init__()
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ConfigError(f"callbacks.checkpoint.every_n_train_steps={every_n_train_steps} must be at least 1.")
        if save_last_k < 1:
            raise ConfigError(f"callbacks.checkpoint.save_last_k={save_last_k} must be at least 1.")
        self.dirpath, self.every_n_train_steps, self.save_last_k = dirpath, every_n_train_steps, save_last_k
        interval = {"minutes": 2} if train_time_interval is None else train_time_interval
        if not isinstance(interval, datetime.timedelta):
            interval = datetime.timedelta(**interval)
        self.seconds = interval.total_seconds()
        self.interrupted = False
        self._step, self._saved_step, self._due = 0, -1, False
        self._random: list[dict[str, Any]] | None = None
        self._seconds_before, self._began, self._ended = 0.0, time.monotonic(), 0.0

    @property
    def folder(self) -> CheckpointFolder:
        assert self.dirpath is not None and self.run is not None
        return CheckpointFolder(Path(self.dirpath), keep=self.save_last_k, kept=self.run.kept_steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.run is not None
        self.run.interruption.listen()  # again: Lightning has put its own handlers in place
        self._step = trainer.global_step
        if self._random is not None:
            restore_random_state(self._random[trainer.global_rank % len(self._random)])
        self._saved = self._began = time.monotonic()

    @property
    def trained_seconds(self) -> float:
        """How long the run has trained, all its parts together."""
        return self._seconds_before + (self._ended or time.monotonic()) - self._began

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # still accumulating
        step = self._step = trainer.global_step
        saves, stops = self._wishes(trainer, step)
        assert self.run is not None
        last, validates = step == trainer.max_steps, validates_now(trainer)
        if stops and not last:
            self.interrupted = trainer.should_stop = True
            if not validates:  # Lightning would validate because it stops; the run that goes on would not
                trainer.limit_val_batches = 0
        self._due = saves or stops or last or step in self.run.kept_steps
        if self._due and not validates:
            self._save(trainer, step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._due and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a callback such as `EarlyStopping` or a limit has ended it before its last step."""
        if trainer.global_step > 0 and self._saved_step != trainer.global_step:
            self._save(trainer, trainer.global_step)
        self._ended = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"random": of_all_processes(capture_random_state()), "seconds": self.trained_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random, self._seconds_before = state_dict["random"], state_dict["seconds"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning counts micro-batches; with other devices the same steps have another number of them."""
        assert self.run is not None
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        step = checkpoint["global_step"]
        in_epoch = (step - 1) % (self.run.steps_per_epoch or max(self.run.steps, step)) + 1
        for counts, steps in ((progress["total"], step), (progress["current"], in_epoch)):
            done = steps * trainer.accumulate_grad_batches
            counts.update(ready=done, started=done, processed=done, completed=done - 1)

    def _wishes(self, trainer: Trainer, step: int) -> tuple[bool, bool]:
        """Whether to save, and whether to stop, after this step. Several processes ask each other at log steps."""
        assert self.run is not None
        stops = self.run.interruption.requested
        if self.every_n_train_steps is not None:
            saves = step % self.every_n_train_steps == 0
        else:
            saves = time.monotonic() - self._saved >= self.seconds
        if trainer.world_size == 1:
            return saves, stops
        if not is_log_step(trainer, step):
            return saves and self.every_n_train_steps is not None, False
        wishes = torch.tensor([float(saves), float(stops)], device=trainer.strategy.root_device)
        wishes = trainer.strategy.reduce(wishes, reduce_op="sum")
        return bool(wishes[0] > 0), bool(wishes[1] > 0)

    def _save(self, trainer: Trainer, step: int) -> None:
        """Checkpoint, curves and record agree: all of them are on disk up to this step."""
        self._due = False
        if getattr(trainer, "fast_dev_run", False):
            return
        for logger in trainer.loggers:
            if (flush := getattr(logger, "flush", None)) is not None:
                flush()
        trainer.save_checkpoint(self.folder.path(step))
        if trainer.is_global_zero:
            self.folder.prune()
        self._saved, self._saved_step = time.monotonic(), step


def validates_now(trainer: Trainer) -> bool:
    """Whether validation is due after the micro-batch that has just ended."""
    if not trainer.enable_validation:
        return False
    every = trainer.val_check_batch
    if every is None or every == float("inf"):
        return False
    if trainer.check_val_every_n_epoch is None:
        return (trainer.fit_loop.total_batch_idx + 1) % every == 0
    due = (trainer.current_epoch + 1) % trainer.check_val_every_n_epoch == 0
    return due and (trainer.fit_loop.batch_idx + 1) % every == 0
