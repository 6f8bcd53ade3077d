"""The record that every run leaves in MLflow: parameters, metrics, figures, lineage, and the way to find it again."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.tracking.config import TrackingConfig
    from maquette.tracking.environment import describe_environment, peak_memory_bytes
    from maquette.tracking.lineage import lineage_tags
    from maquette.tracking.record import RunLog, start_parent_run, start_run
    from maquette.tracking.search import find_runs
    from maquette.tracking.store import prepare_store

__all__ = [
    "RunLog",
    "TrackingConfig",
    "describe_environment",
    "find_runs",
    "lineage_tags",
    "peak_memory_bytes",
    "prepare_store",
    "start_parent_run",
    "start_run",
]

_HOMES = {
    "RunLog": "record",
    "TrackingConfig": "config",
    "describe_environment": "environment",
    "find_runs": "search",
    "lineage_tags": "lineage",
    "peak_memory_bytes": "environment",
    "prepare_store": "store",
    "start_parent_run": "record",
    "start_run": "record",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"maquette.tracking.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'maquette.tracking' has no attribute {name!r}")
