"""Where points of metric curves go: rows of the embedded store, or `log_batch` calls to a server.

MLflow's client takes 0.3 ms of this process's Python for every point that it writes to SQLite, more than 1% of a
small model's step; the rows themselves take 0.01 ms. So points go to the embedded store as rows of MLflow's two metric
tables, in one transaction (benchmarks/tracking_overhead.py measures both). Where those tables are not as expected,
`log_batch` is used.
"""

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from maquette.tracking.client import open_client

_LARGEST = 1.7976931348623157e308
_BATCH = 1000  # the most metrics MLflow takes in one call
_TABLES = {
    "metrics": {"key", "value", "timestamp", "run_uuid", "step", "is_nan"},
    "latest_metrics": {"key", "value", "timestamp", "step", "is_nan", "run_uuid"},
}
_INSERT = "INSERT OR IGNORE INTO metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
_LATEST = """
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (key, run_uuid) DO UPDATE
SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)
"""


class Point(NamedTuple):
    """One value of a metric's curve; `timestamp` in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


class Sink(Protocol):
    """Takes points in batches; raises where the store does not take them (they can be given again)."""

    def write(self, points: Sequence[Point]) -> None: ...

    def close(self) -> None: ...


class EmbeddedSink:
    """Writes points as rows of MLflow's tables in a SQLite file. Used by one thread."""

    def __init__(self, file: Path, run_id: str) -> None:
        self._run_id = run_id
        self._connection = sqlite3.connect(file, timeout=20, isolation_level=None, check_same_thread=False)
        # A commit to the write-ahead journal then needs no wait for the disk; a power cut may lose the last seconds.
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def write(self, points: Sequence[Point]) -> None:
        rows = [(p.key, _finite(p.value), p.timestamp, p.step, math.isnan(p.value), self._run_id) for p in points]
        newest = {}
        for row in sorted(rows, key=lambda row: (row[3], row[2], row[1])):
            newest[row[0]] = row
        with self._transaction():
            self._connection.executemany(_INSERT, rows)
            self._connection.executemany(_LATEST, newest.values())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._connection.close()


def _finite(value: float) -> float:
    """A value as MLflow stores it, since SQL knows neither NaN (kept in a column of its own) nor infinity."""
    return 0.0 if math.isnan(value) else max(-_LARGEST, min(_LARGEST, value))


class ServerSink:
    """Writes points through MLflow's client."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._client, self._run_id = open_client(uri), run_id

    def write(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(points), _BATCH):
            batch = [Metric(p.key, p.value, p.timestamp, p.step) for p in points[start : start + _BATCH]]
            self._client.log_batch(self._run_id, metrics=batch)

    def close(self) -> None:
        """Nothing is held open."""


def open_sink(uri: str, file: Path | None, run_id: str) -> Sink:
    """The sink for a run of the store at `uri`; `file` is its SQLite file, None for a server."""
    if file is not None and _has_expected_tables(file):
        return EmbeddedSink(file, run_id)
    return ServerSink(uri, run_id)


def _has_expected_tables(file: Path) -> bool:
    with contextlib.closing(sqlite3.connect(file, timeout=20)) as connection:
        return all(
            {row[1] for row in connection.execute(f"PRAGMA table_info({table})")} == columns
            for table, columns in _TABLES.items()
        )
