"""What a run of one objective is made of, as plain values that can go to another process.

Opened there, a `Plan` is the objective as a LightningModule and its data as a LightningDataModule. Everything around a
step (measuring, guarding, saving, resuming, tracking) is the Trainer's and its callbacks'.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

if TYPE_CHECKING:
    from maquette.text import Tokenizer
    from maquette.training.job import Job
    from maquette.training.record import RunRecord

Row = dict[str, Any]


@dataclass(frozen=True)
class Opened:
    """`accumulate`: forward passes of this process in an optimiser step; `steps_per_epoch`: optimiser steps of one
    Lightning epoch, after which the loader is iterated anew; None: the run is one epoch; 0: nobody knows."""

    module: LightningModule
    data: LightningDataModule
    accumulate: int = 1
    steps_per_epoch: int | None = None


class Plan(Protocol):
    """Frozen and picklable."""

    @property
    def kind(self) -> str:
        """The objective's name: pretrain, sft, ..."""
        ...

    def open(self, job: "Job", tokenizer: "Tokenizer") -> Opened:
        """Raises `StageError` where data or weights are missing or damaged."""
        ...

    def results(self, opened: Opened, last: Row, step: int) -> dict[str, Any]:
        """Fields of the run's record; `last` has the newest value of every curve."""
        ...

    def export(
        self, job: "Job", opened: Opened, state: dict[str, Tensor], folder: Path, record: "RunRecord", *, finished: bool
    ) -> None:
        """Writes the model, whose weights are `state` (as the module's `state_dict` has them), to `folder`."""
        ...

    def draw(self, opened: Opened, history: list[Row], folder: Path, title: str) -> list[Path]:
        """Draws the run's curves into `folder`; returns the pictures."""
        ...

    def totals(self, record: "RunRecord") -> dict[str, float]:
        """More numbers for the tracker's summary of the finished run."""
        ...
