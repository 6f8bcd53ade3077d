"""Training: a job in, a run folder out. Devices, precision, compilation, checkpoints, and everything around a step."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.training.devices import Hardware, choose_hardware
    from maquette.training.fitting import fit
    from maquette.training.job import Job
    from maquette.training.metrics_file import read_history
    from maquette.training.record import RunRecord, read_record

__all__ = ["Hardware", "Job", "RunRecord", "choose_hardware", "fit", "read_history", "read_record"]

_HOMES = {
    "Hardware": "devices",
    "choose_hardware": "devices",
    "fit": "fitting",
    "read_history": "metrics_file",
    "Job": "job",
    "RunRecord": "record",
    "read_record": "record",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
