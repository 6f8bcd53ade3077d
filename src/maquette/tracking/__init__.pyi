from .config import TrackingConfig as TrackingConfig
from .environment import (
    describe_environment as describe_environment,
    lineage_tags as lineage_tags,
    peak_memory_bytes as peak_memory_bytes,
)
from .logger import MLflowLogger as MLflowLogger
from .run_log import RunLog as RunLog, start_parent_run as start_parent_run, start_run as start_run
from .search import find_runs as find_runs
from .store import prepare_store as prepare_store
