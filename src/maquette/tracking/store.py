"""Where runs are kept: the embedded store `<outputs>/mlflow.db` (SQLite) or a tracking server.

The embedded store is created once, whole, under a lock, before anything runs in parallel: two processes that create
MLflow's schema at once make one of them fail. It uses write-ahead journalling, so that several processes write to it
without waiting long for each other.
"""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import atomic_file, explain_os_error, locked
from maquette.tracking.client import impatient, load_mlflow, open_client
from maquette.tracking.config import TrackingConfig

_EMBEDDED = "sqlite:///"
_SERVERS = ("http", "https", "databricks", "postgresql", "mysql", "mssql")


def store_uri(config: TrackingConfig, outputs: Path | str) -> str:
    """MLflow's URI of the store: `config.uri`, or the embedded one (with an absolute path, as MLflow needs it).

    Raises `ConfigError` for a URI that is not one of a store.
    """
    uri = config.uri
    if uri is None:
        return f"{_EMBEDDED}{Path(outputs).absolute() / 'mlflow.db'}"
    if uri.startswith(_EMBEDDED):
        return f"{_EMBEDDED}{Path(uri.removeprefix(_EMBEDDED)).absolute()}"
    if urlsplit(uri).scheme.partition("+")[0] in _SERVERS or uri == "databricks":
        return uri
    raise ConfigError(
        f"tracking.uri={uri} is not the address of a store.",
        "Write http://host:port for a server or sqlite:///<file> for a file; leave it out for <outputs>/mlflow.db.",
    )


def embedded_file(uri: str) -> Path | None:
    """The SQLite file behind a store's URI; None for a server."""
    return Path(uri.removeprefix(_EMBEDDED)) if uri.startswith(_EMBEDDED) else None


def prepare_store(config: TrackingConfig, outputs: Path | str, *, num_nodes: int = 1) -> str:
    """Makes the embedded store where it is missing, and the experiment; returns the store's URI.

    Call it in the parent process before jobs start in parallel. Raises `ConfigError` where several machines would
    share a SQLite file, `StageError` where the store can't be written or reached.
    """
    uri = store_uri(config, outputs)
    file = embedded_file(uri)
    if file is None:
        with impatient(), explained(uri):
            _ensure_experiment(uri, config.experiment, None)
        return uri
    if num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={num_nodes}: a SQLite file can't be shared by machines.",
            "Start `mlflow server` on one and give its address, tracking.uri=http://host:5000; or tracking=none.",
        )
    with locked(file):
        if not file.exists():
            _create(file)
        _settle(file)
        with explained(uri):
            _ensure_experiment(uri, config.experiment, str(file.parent / "mlartifacts"))
    return uri


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns what MLflow, SQLAlchemy or the network raise into a `StageError` that names the store."""
    load_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise _store_error(uri, error) from error


def _store_error(uri: str, error: Exception) -> StageError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__).removesuffix(".")
    file = embedded_file(uri)
    if file is None:
        return StageError(
            f"The tracking server {uri} could not be used: {reason[:300]}.",
            "Start it or correct tracking.uri; tracking=none trains without MLflow.",
        )
    if "out-of-date database schema" in str(error):
        return StageError(
            f"{file} was made by another version of MLflow.", f"Bring it up to date: mlflow db upgrade {uri}"
        )
    return StageError(
        f"The MLflow store {file} can't be used: {reason[:300]}.",
        "Free some space, or put the results elsewhere with outputs=<folder>; tracking=none trains without MLflow.",
    )


def _create(file: Path) -> None:
    """MLflow's schema in a new file, which takes its name only when it is whole."""
    try:
        with tempfile.TemporaryDirectory(prefix=".mlflow.", dir=file.parent) as folder, atomic_file(file) as whole:
            draft = Path(folder) / "draft.db"
            with explained(f"{_EMBEDDED}{file}"):
                open_client(f"{_EMBEDDED}{draft}").get_experiment("0")
                with (
                    contextlib.closing(sqlite3.connect(draft)) as source,
                    contextlib.closing(sqlite3.connect(whole)) as target,
                ):
                    source.backup(target)
                    target.execute("PRAGMA journal_mode = WAL")
    except OSError as error:
        raise explain_os_error(error, file) from error


def _settle(file: Path) -> None:
    """Writes to the store what may have changed since it was made, where artifacts lie: `outputs` may have been moved.

    A read-only, full or foreign file is so told before training starts.
    """
    artifacts = file.parent / "mlartifacts"
    with (
        explained(f"{_EMBEDDED}{file}"),
        contextlib.closing(sqlite3.connect(file, timeout=20)) as connection,
        connection,
    ):
        (before,) = connection.execute("SELECT artifact_location FROM experiments ORDER BY experiment_id").fetchone()
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (f"{artifacts}/0",))
        before = before.removesuffix("/0")
        if before != str(artifacts):
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (str(artifacts), len(before) + 1, len(before), before),
                )


def _ensure_experiment(uri: str, name: str, artifacts: str | None) -> str:
    """The id of the experiment `name`, made where it is missing."""
    client = open_client(uri)
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise StageError(
            f"The MLflow experiment '{name}' was deleted.",
            "Bring it back in MLflow, or choose another: tracking.experiment=...",
        )
    return found.experiment_id if found is not None else client.create_experiment(name, artifact_location=artifacts)
