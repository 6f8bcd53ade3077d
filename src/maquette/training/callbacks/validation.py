"""Validation a number of times over the whole training, evenly, and always after the last step; and what the model
writes at each.

`trainer.val_check_interval` can't say that: it counts batches, so the last validation falls before the end. Set it, and
`ValidationSchedule` leaves it alone.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from maquette.model.sharding import whole
from maquette.training.callbacks.base import RunCallback

_NEVER = 1 << 62


def validation_steps(steps: int, validations: int) -> frozenset[int]:
    """After which of `steps` steps it is validated."""
    runs = min(validations, steps)
    return frozenset(round(steps * number / runs) for number in range(1, runs + 1)) if runs > 0 else frozenset()


class ValidationSchedule(RunCallback):
    """Validates `num_validations` times (the run's setting) over all steps."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.run is not None
        self._due = validation_steps(
            trainer.max_steps if trainer.max_steps > 0 else self.run.steps, self.run.validations
        )
        trainer.check_val_every_n_epoch = None
        trainer.val_check_batch = _NEVER
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        # Lightning validates where its count of batches is a multiple of this.
        trainer.val_check_batch = trainer.fit_loop.total_batch_idx + 1 if self._step in self._due else _NEVER


class Samples(RunCallback):
    """Has the model continue `prompts` (pretraining) or answer held-out prompts (after it), and keeps that with the
    curves, so that one can read how it learns."""

    def __init__(self, prompts: Sequence[str] = ()) -> None:
        super().__init__()
        self.prompts = list(prompts)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if getattr(pl_module, "validates_start", False) and trainer.global_step == 0:
            self._write(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: Any) -> None:
        if self.run is None or not hasattr(pl_module, "write_samples"):
            return
        with whole(pl_module):  # all processes enter; the first one writes
            if self.run.metrics is not None:
                step = trainer.global_step
                rows = [{"step": step, **row} for row in pl_module.write_samples(self.prompts)]
                self.run.metrics.note(step, {"samples": rows})
