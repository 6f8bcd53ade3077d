"""The project's own Lightning callbacks. None of them changes what is trained."""

from maquette.training.callbacks.base import RunCallback, RunContext
from maquette.training.callbacks.checkpoint import RunCheckpoint
from maquette.training.callbacks.energy import EnergyUse
from maquette.training.callbacks.loss_spike import LossSpikeGuard
from maquette.training.callbacks.progress import Progress
from maquette.training.callbacks.throughput import Throughput
from maquette.training.callbacks.validation import Samples, ValidationSchedule

__all__ = [
    "EnergyUse",
    "LossSpikeGuard",
    "Progress",
    "RunCallback",
    "RunCheckpoint",
    "RunContext",
    "Samples",
    "Throughput",
    "ValidationSchedule",
]
