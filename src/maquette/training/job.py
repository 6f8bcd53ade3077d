"""A run before it runs: every number resolved, every file named. Plain values, so that it can go to other processes."""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts.nodes import Node
from maquette.model.config import CoreConfig
from maquette.model.parametrization import STANDARD, Parametrization
from maquette.tracking.config import TrackingConfig
from maquette.training.callbacks.validation_schedule import validation_steps
from maquette.training.config import TrainerConfig
from maquette.training.devices import Hardware
from maquette.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, on what, how, and where it is written.

    `plan`: the objective with its data. `checkpoint`: folder whose weights are the initial ones. `batch_size_tokens`:
    of a step, on average where steps differ. `flops`: exact training FLOPs. `params` and `tags`: what the tracker is
    told.
    `kept_steps`: after which a checkpoint is saved and stays, for others to go on from. The configs keep what the
    recipe left to them; the numbers here are the resolved ones.
    """

    name: str
    folder: Path
    outputs: Path
    seed: int
    architecture: CoreConfig
    checkpoint: Path | None
    tokenizer_folder: Path
    plan: Plan
    steps: int
    batch_size_tokens: int
    learning_rate: float
    warmup: float
    weight_decay: float
    flops: int
    compiled: bool
    linear_backend: str
    hardware: Hardware
    optimizer: Node
    scheduler: Node
    trainer: TrainerConfig
    tracking: TrackingConfig
    num_validations: int = 10
    callbacks: dict[str, Any] = dataclasses.field(default_factory=dict)
    logger: dict[str, Any] = dataclasses.field(default_factory=dict)
    parametrization: Parametrization = STANDARD
    kept_steps: frozenset[int] = frozenset()
    params: dict[str, Any] = dataclasses.field(default_factory=dict)
    tags: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """D: a whole number of steps."""
        return self.steps * self.batch_size_tokens

    @property
    def validation_steps(self) -> frozenset[int]:
        """After which steps validation runs, evenly over training; always after the last."""
        return validation_steps(self.steps, self.num_validations)
