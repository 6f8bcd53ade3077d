"""A run before it runs, in one process: what the run is, and what only the process that trains it has to know."""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts.run_file import TRIED
from maquette.artifacts.targets import Node
from maquette.model.architecture import CoreConfig
from maquette.model.parametrization import Parametrization
from maquette.recipe.run_spec import RunSpec
from maquette.training.callbacks.validation_schedule import validation_steps
from maquette.training.config import TrainerConfig
from maquette.training.devices import Hardware
from maquette.training.plan import Plan


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained (`spec`), and how and where it is done here. Plain values, so that it can go to other processes.

    `plan`: the objective with its data. `compiled` and `linear_backend`: as the run's record says, once it has begun.
    `kept_steps`: after which a checkpoint is saved and stays, for others to go on from. `tags`: what the tracker is
    told beside the spec. The configs keep what the recipe left to them; the numbers of the spec are the resolved ones.
    """

    spec: RunSpec
    outputs: Path
    plan: Plan
    hardware: Hardware
    optimizer: Node
    scheduler: Node
    trainer: TrainerConfig
    num_validations: int = 10
    callbacks: dict[str, Any] = dataclasses.field(default_factory=dict)
    logger: dict[str, Any] = dataclasses.field(default_factory=dict)
    compiled: bool = False
    linear_backend: str = "torch"
    kept_steps: frozenset[int] = frozenset()
    tags: dict[str, Any] = dataclasses.field(default_factory=dict)

    # What is asked of the spec most often, so that readers stay short.

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        """Of a run that is only tried out one where no other run is looked for."""
        return self.outputs / (TRIED if self.spec.is_trial else "runs") / self.spec.name

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def architecture(self) -> CoreConfig:
        return self.spec.architecture

    @property
    def checkpoint(self) -> Path | None:
        """Folder whose weights are the initial ones."""
        return None if self.spec.checkpoint is None else Path(self.spec.checkpoint)

    @property
    def tokenizer_folder(self) -> Path:
        return Path(self.spec.tokenizer)

    @property
    def steps(self) -> int:
        return self.spec.steps

    @property
    def batch_size_tokens(self) -> int:
        """Of a step, on average where steps differ."""
        return self.spec.batch_size_tokens

    @property
    def tokens(self) -> int:
        """D: a whole number of steps."""
        return self.spec.tokens

    @property
    def learning_rate(self) -> float:
        return self.spec.learning_rate

    @property
    def warmup(self) -> float:
        return self.spec.warmup

    @property
    def weight_decay(self) -> float:
        return self.spec.weight_decay

    @property
    def flops(self) -> int:
        """Exact training FLOPs."""
        return self.spec.compute

    @property
    def parametrization(self) -> Parametrization:
        return self.spec.parametrization

    @property
    def params(self) -> dict[str, Any]:
        return self.spec.params

    @property
    def validation_steps(self) -> frozenset[int]:
        """After which steps validation runs, evenly over training; always after the last."""
        return validation_steps(self.steps, self.num_validations)
