"""MLflow's client, opened quietly: no telemetry, no migration logs, no printed addresses. Imported only when needed
(MLflow takes a second to import)."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def load_mlflow() -> None:
    """Imports MLflow with its telemetry and its chatter off. Every use of MLflow in this room comes after this."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what it then raises


def open_client(uri: str) -> "MlflowClient":
    """A client of the store at `uri`; MLflow's global state (`mlflow.set_tracking_uri`) is left alone."""
    load_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """While a person waits for a run to start, an unreachable server is told after seconds, not minutes.

    Settings of one's own in the environment are kept.
    """
    added = {key: value for key, value in _PATIENCE.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
