"""The MLflow logger, what every run records (parameters, metrics, figures, lineage), and finding runs again."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.tracking.config import TrackingConfig
    from maquette.tracking.environment import describe_environment, peak_memory_bytes
    from maquette.tracking.lineage import lineage_tags
    from maquette.tracking.logger import MLflowLogger
    from maquette.tracking.run_log import RunLog, start_parent_run, start_run
    from maquette.tracking.search import find_runs
    from maquette.tracking.store import prepare_store, store_digest

__all__ = [
    "MLflowLogger",
    "RunLog",
    "TrackingConfig",
    "describe_environment",
    "find_runs",
    "lineage_tags",
    "peak_memory_bytes",
    "prepare_store",
    "start_parent_run",
    "start_run",
    "store_digest",
]

_HOMES = {
    "MLflowLogger": "logger",
    "RunLog": "run_log",
    "TrackingConfig": "config",
    "describe_environment": "environment",
    "find_runs": "search",
    "lineage_tags": "lineage",
    "peak_memory_bytes": "environment",
    "prepare_store": "store",
    "start_parent_run": "run_log",
    "start_run": "run_log",
    "store_digest": "store",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"maquette.tracking.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'maquette.tracking' has no attribute {name!r}")
