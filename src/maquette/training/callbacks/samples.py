"""What the model writes at each validation, kept with the curves, so that one can read how it learns."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.base import RunCallback


class Samples(RunCallback):
    """Has the model continue `prompts` (pretraining) or answer held-out prompts (after it)."""

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
        if self.run is None or self.run.metrics is None or not hasattr(pl_module, "write_samples"):
            return
        if "FSDP" in type(trainer.strategy).__name__:  # sharded weights have no one to write
            return
        step = trainer.global_step
        rows = [{"step": step, **row} for row in pl_module.write_samples(self.prompts)]
        self.run.metrics.note(step, {"samples": rows})
