"""What the project's own callbacks know of the run beyond what a Trainer tells them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from maquette.training.metrics_file import MetricsFile
from maquette.training.processes import StopSignal


@dataclass(frozen=True)
class RunContext:
    """A run as its callbacks see it. `flops_per_token` of training; `peak_flops` a second of all devices together;
    `kept_steps`: after which a checkpoint is saved for others and stays; `validations`: how often it is validated.
    `metrics` is None beside the first process."""

    folder: Path
    steps: int
    batch_size_tokens: int
    flops_per_token: float
    peak_flops: float
    validations: int
    stop_signal: StopSignal
    metrics: MetricsFile | None = None
    steps_per_epoch: int | None = None
    kept_steps: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        return self.folder.name


class RunCallback(Callback):
    """A callback that gets the run before training begins. It changes nothing that is trained."""

    changes_training = False

    # Lightning enters its profiler around each hook of each callback, about 5 microseconds, but passes over what can't
    # be called: a callback of ours names the hooks of a batch that it has.
    if not TYPE_CHECKING:
        on_train_batch_start = on_train_batch_end = on_before_zero_grad = None
        on_before_backward = on_after_backward = on_before_optimizer_step = None
    run: RunContext | None = None

    def attach(self, run: RunContext) -> None:
        self.run = run


def is_log_step(trainer: Any, step: int) -> bool:
    """Whether `step` gives a point of the training curves: every `trainer.log_every_n_steps`, and the last."""
    return step % trainer.log_every_n_steps == 0 or step == trainer.max_steps
