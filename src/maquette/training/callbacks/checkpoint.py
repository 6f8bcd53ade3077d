"""Checkpoints from which a run resumes exactly.

Why not Lightning's `ModelCheckpoint` (2.6): saving by time it may fall between two micro-batches of a step, and half a
gradient is lost; it saves before the values of its step are logged and before the step's validation, which are lost
when the run is killed there; it saves neither at the last step nor when asked to stop. No hook of Lightning's comes
after all that, so its loop's `on_advance_end` is wrapped. ModelCheckpoint goes well beside this one: add it to keep the
best model, `+callbacks.best._target_=lightning.pytorch.callbacks.ModelCheckpoint
+callbacks.best.monitor=validation/loss`.
"""

import datetime
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from maquette.artifacts import ConfigError
from maquette.data.process_group import control_group, of_all_processes
from maquette.training.callbacks.base import RunCallback
from maquette.training.callbacks.loss_spike import diverged, first_broken
from maquette.training.checkpoint_io import CheckpointFolder, capture_random_state, restore_random_state


class RunCheckpoint(RunCallback, Checkpoint):
    """Saves at the end of a step: every `every_n_train_steps` steps if given, else every `train_time_interval` (a
    mapping such as `{minutes: 2}`), and at the last step, at steps that others resume from, and when somebody wants
    training to stop, after which it stops. The newest `save_last_k` files stay.

    It also keeps what a checkpoint of Lightning's lacks for an exact resume: random numbers of every process.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        train_time_interval: datetime.timedelta | Mapping[str, float] | None = None,
        save_last_k: int = 2,
    ) -> None:
        super().__init__()
        if every_n_train_steps is not None and every_n_train_steps < 1:
            raise ConfigError(f"callbacks.checkpoint.every_n_train_steps={every_n_train_steps} must be at least 1.")
        if save_last_k < 1:
            raise ConfigError(f"callbacks.checkpoint.save_last_k={save_last_k} must be at least 1.")
        self.every_n_train_steps, self.save_last_k = every_n_train_steps, save_last_k
        interval = {"minutes": 2} if train_time_interval is None else train_time_interval
        if not isinstance(interval, datetime.timedelta):
            interval = datetime.timedelta(**interval)
        self.seconds = interval.total_seconds()
        self.interrupted = False
        self._step, self._saved_step = 0, -1
        self._random: list[dict[str, Any]] | None = None
        self._seconds_before, self._began, self._ended = 0.0, time.monotonic(), 0.0

    @property
    def folder(self) -> CheckpointFolder:
        assert self.run is not None
        return CheckpointFolder(self.run.folder / "checkpoints", keep=self.save_last_k, protected=self.run.kept_steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.run is not None
        self.run.stop_signal.listen()  # again: Lightning has put its own handlers in place
        self._step = trainer.global_step
        if self._random is not None:
            restore_random_state(self._random[trainer.global_rank % len(self._random)])
        self._saved = self._began = time.monotonic()
        loop = trainer.fit_loop.epoch_loop
        end_batch = loop.on_advance_end

        def end_batch_and_save(data_fetcher: Any) -> None:
            end_batch(data_fetcher)
            if trainer.global_step != self._step:  # else still accumulating
                self._step = trainer.global_step
                self._end_step(trainer)

        loop.on_advance_end = end_batch_and_save  # type: ignore[method-assign]

    @property
    def trained_seconds(self) -> float:
        """How long the run has trained, all its parts together."""
        return self._seconds_before + (self._ended or time.monotonic()) - self._began

    def _end_step(self, trainer: Trainer) -> None:
        assert self.run is not None
        saves, stops = self._wishes(trainer, self._step)
        last = self._step == trainer.max_steps
        if stops and not last:
            self.interrupted = trainer.should_stop = True
        if saves or stops or last or self._step in self.run.kept_steps:
            self._save(trainer, self._step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a callback such as `EarlyStopping` or a limit has ended it before its last step."""
        if trainer.global_step > 0 and self._saved_step != trainer.global_step:
            self._save(trainer, trainer.global_step)
        self._ended = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {
            "random": of_all_processes(capture_random_state()),
            "seconds": self.trained_seconds,
            "metrics": None if self.run is None or self.run.metrics is None else self.run.metrics.mark(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._random, self._seconds_before = state_dict["random"], state_dict["seconds"]
        if self.run is not None and self.run.metrics is not None:
            self.run.metrics.cut(state_dict["metrics"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning counts micro-batches; with other devices the same steps have another number of them. And it takes
        a checkpoint for one of `on_train_batch_end`, where a batch does not count as completed yet."""
        assert self.run is not None
        loop, step = checkpoint["loops"]["fit_loop"], checkpoint["global_step"]
        progress = loop["epoch_loop.batch_progress"]
        in_epoch = (step - 1) % (self.run.steps_per_epoch or max(self.run.steps, step)) + 1
        for counts, steps in ((progress["total"], step), (progress["current"], in_epoch)):
            done = steps * trainer.accumulate_grad_batches
            counts.update(ready=done, started=done, processed=done, completed=done - 1)
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - 1

    def _wishes(self, trainer: Trainer, step: int) -> tuple[bool, bool]:
        """Whether to save, and whether to stop, after this step. Several processes ask each other."""
        assert self.run is not None
        stop_signal = self.run.stop_signal
        if self.every_n_train_steps is not None:
            saves = step % self.every_n_train_steps == 0
        else:
            saves = time.monotonic() - self._saved >= self.seconds
        if trainer.world_size == 1:
            return saves, stop_signal.requested
        wishes = torch.tensor([saves, stop_signal.number], dtype=torch.uint8)
        dist.all_reduce(wishes, dist.ReduceOp.MAX, group=control_group())  # two bytes a step; no GPU waits for them
        stop_signal.number = int(wishes[1])  # the first process has Slurm start the job again
        return bool(wishes[0]), stop_signal.requested

    def _save(self, trainer: Trainer, step: int) -> None:
        """Checkpoint, curves and record agree: all of them are on disk up to this step."""
        if getattr(trainer, "fast_dev_run", False):
            return
        broken = first_broken(trainer.lightning_module.named_parameters())
        if trainer.world_size > 1:  # all stop where one holds a broken part
            count = torch.tensor(float(broken is not None), device=trainer.strategy.root_device)
            broken = broken or ("a parameter" if trainer.strategy.reduce(count, reduce_op="sum") > 0 else None)
        if broken is not None:  # the checkpoint before it stays the newest
            raise diverged(broken, step)
        for logger in trainer.loggers:
            if (flush := getattr(logger, "flush", None)) is not None:
                flush()
        trainer.save_checkpoint(self.folder.path(step))
        if trainer.is_global_zero:
            self.folder.prune()
        self._saved, self._saved_step = time.monotonic(), step
