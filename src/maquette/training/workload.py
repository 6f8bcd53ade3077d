"""What training for one objective brings to the machinery that all objectives share.

A `Plan` is part of a job: plain values, which go to other processes. Opened there, it is a `Workload`: the objective as
a LightningModule, its batches, how the model is judged, and what the run leaves. Everything around a step (measuring,
guarding, saving, resuming, tracking) is the same for all of them and is not its business.

To train for something new, write the two and give the stage's planning the first. Batches resume exactly where they
are an iterable with a length and with `state_dict` and `load_state_dict` of their own.
"""

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch import Trainer
from torch import Tensor, nn

from maquette.objectives import Objective

if TYPE_CHECKING:
    from maquette.text import Tokenizer
    from maquette.training.job import Job
    from maquette.training.processes import World
    from maquette.training.record import RunRecord

Row = dict[str, Any]


class Batches(Protocol):
    """The micro-batches of one process: of the whole run, or of one of its epochs where it has several.

    An iterator begins where the state stands. The state counts what was handed out, not what was read ahead, and
    Lightning saves it after every step that it checkpoints.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Workload(abc.ABC):
    """A plan, opened in one process. `core`: the transformer that is trained. `micro_batches_per_step`: forward passes
    of this process in an optimiser step."""

    objective: Objective
    core: nn.Module
    batches: Batches
    micro_batches_per_step: int

    steps_per_epoch: int | None = None
    """Optimiser steps of one Lightning epoch, after which `batches` is iterated anew; None: the run is one epoch."""

    watches_spikes: bool = True
    """Whether a loss several times its running mean is news. The losses of reinforcement learning have no such mean."""

    judges_start: bool = False
    """Whether the model is judged before its first step too: what the run gains is told from there."""

    @abc.abstractmethod
    def judge(self, trainer: Trainer, step: int) -> dict[str, float]:
        """Values to record after `step`, by their full names. Every process calls it; it moves no random state."""

    @abc.abstractmethod
    def describe(self, step: int) -> str:
        """What `step` (from 1) trained on, for the message that it went wrong."""

    def write_samples(self, step: int) -> list[Row]:
        """What the model writes after `step`: rows with `step`, `prompt` and `text`. The first process calls it."""
        return []

    @abc.abstractmethod
    def results(self, last: Row, step: int) -> dict[str, Any]:
        """Fields of the run's record; `last` has the newest value of every curve."""

    @abc.abstractmethod
    def export(self, state: dict[str, Tensor], folder: Path, record: "RunRecord", *, finished: bool) -> None:
        """Writes the model, whose weights are `state` (as the objective's `state_dict` has them), to `folder`."""

    @abc.abstractmethod
    def draw(self, history: list[Row], folder: Path, title: str) -> list[Path]:
        """Draws the run's curves into `folder`; returns the pictures."""

    def totals(self, record: "RunRecord") -> dict[str, float]:
        """More numbers for the tracker's summary of the finished run."""
        return {}


class Plan(Protocol):
    """What a job says of its objective: frozen, picklable."""

    @property
    def kind(self) -> str:
        """The objective's name: pretrain, sft, ..."""
        ...

    def open(self, job: "Job", tokenizer: "Tokenizer", world: "World") -> Workload:
        """Reads data and weights. Raises `StageError` where they are missing or damaged."""
        ...
