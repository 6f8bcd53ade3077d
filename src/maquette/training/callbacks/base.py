"""What the project's own callbacks know of the run beyond what a Trainer tells them."""

from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback

from maquette.training.metrics_file import MetricsFile
from maquette.training.processes import Interruption


@dataclass(frozen=True)
class RunContext:
    """A run as its callbacks see it. `flops_per_token` of training; `peak_flops` a second of all devices together;
    `kept_steps`: after which a checkpoint is saved for others and stays; `validations`: how often it is validated.
    `metrics` is None beside the first process."""

    name: str
    steps: int
    batch_size_tokens: int
    flops_per_token: float
    peak_flops: float
    validations: int
    interruption: Interruption
    metrics: MetricsFile | None = None
    steps_per_epoch: int | None = None
    kept_steps: frozenset[int] = frozenset()


class RunCallback(Callback):
    """A callback that is told of the run before training begins. It changes nothing that is trained."""

    changes_training = False
    run: RunContext | None = None

    def attach(self, run: RunContext) -> None:
        self.run = run


def is_log_step(trainer: Any, step: int) -> bool:
    """Whether `step` gives a point of the training curves: every `trainer.log_every_n_steps`, and the last."""
    return step % trainer.log_every_n_steps == 0 or step == trainer.max_steps
