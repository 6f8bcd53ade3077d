"""A run before it runs, in one process: what the run is, what only the process that trains it has to know, and what an
objective brings to it.

An `ObjectivePlan` is plain values that can go to another process. Opened there, it is the objective as a
LightningModule and its data as a LightningDataModule. Everything around a step (measuring, guarding, saving, resuming,
tracking) is the Trainer's and its callbacks'.
"""

import abc
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule, LightningModule

from maquette.artifacts.targets import Node
from maquette.model.architecture import CoreConfig, describe_architecture
from maquette.optimization.optimization import Optimization
from maquette.recipe.run_spec import RunSpec
from maquette.training.callbacks.validation import validation_steps
from maquette.training.config import TrainerConfig
from maquette.training.devices import Hardware

if TYPE_CHECKING:
    from maquette.text.tokenizer import Tokenizer

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Opened:
    """`accumulate`: forward passes of this process in an optimiser step; `steps_per_epoch`: optimiser steps of one
    Lightning epoch, after which the loader is iterated again; None: the run is one epoch; 0: nobody knows."""

    module: LightningModule
    data: LightningDataModule
    accumulate: int = 1
    steps_per_epoch: int | None = None


class ObjectivePlan(abc.ABC):
    """Frozen and picklable."""

    @abc.abstractmethod
    def open(self, job: "Job", tokenizer: "Tokenizer") -> Opened:
        """Raises `StageError` where data or weights are missing or damaged."""

    @abc.abstractmethod
    def draw(self, opened: Opened, history: list[Row], folder: Path, title: str) -> list[Path]:
        """Draws the run's curves into `folder`; returns the pictures."""

    def results(self, opened: Opened, last: Row, step: int) -> dict[str, Any]:
        """Fields of the run's record; `last` has the newest value of every curve."""
        return {}

    def exported_architecture(self, job: "Job", opened: Opened, step: int) -> CoreConfig:
        """What is exported after `step`: the model that was trained."""
        return job.spec.architecture


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained (`spec`), and how and where it is done here. Plain values, so that it can go to other processes.

    `plan`: the objective with its data. `compiled` and `linear_backend`: as the run's record says, once it has begun.
    `kept_steps`: after which a checkpoint is saved and stays, for others to resume from. `tags`: what the tracker
    gets beside the spec. The configs keep what the recipe left to them; the numbers of the spec are the resolved ones.
    """

    spec: RunSpec
    outputs: Path
    plan: ObjectivePlan
    hardware: Hardware
    optimizer: Node
    scheduler: Node
    trainer: TrainerConfig
    num_validations: int = 10
    callbacks: dict[str, Any] = dataclasses.field(default_factory=dict)
    logger: dict[str, Any] = dataclasses.field(default_factory=dict)
    activation_checkpointing: str = "none"
    compiled: bool = False
    linear_backend: str = "torch"
    kept_steps: frozenset[int] = frozenset()
    tags: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        return self.spec.folder(self.outputs)

    @property
    def validation_steps(self) -> frozenset[int]:
        """After which steps validation runs, evenly over training; always after the last."""
        return validation_steps(self.spec.steps, self.num_validations)


def prepare_optimization(job: Job) -> Optimization:
    """How the job's weights move."""
    return Optimization(
        optimizer=job.optimizer,
        scheduler=job.scheduler,
        learning_rate=job.spec.learning_rate,
        weight_decay=job.spec.weight_decay,
        steps=job.spec.steps,
        batch_size_tokens=job.spec.batch_size_tokens,
        warmup=job.spec.warmup,
        fused=False if job.hardware.precision == "16-mixed" else None,
        parametrization=job.spec.parametrization,
    )


def describe_run_model(job: Job, tokenizer_digest: str | None = None) -> dict[str, Any]:
    """The description of the job's initial model; see `maquette.model.loading`."""
    return {
        "architecture": describe_architecture(job.spec.architecture),
        "seed": job.spec.seed,
        "parametrization": dataclasses.asdict(job.spec.parametrization),
        "checkpoint": job.spec.checkpoint,
        "tokenizer_digest": tokenizer_digest,
        "adapter": job.spec.settings.get("adapter"),
    }
