"""Where runs are kept: the embedded store `<outputs>/mlflow.db` (SQLite) or a tracking server, through MLflow's client.

The embedded store is made once, whole, under a lock, before anything runs in parallel: of two processes that make
MLflow's tables at once one fails. MLflow is imported here only, when needed (it takes a second), and quietly: no
telemetry, no logs of migrations, no printed addresses.
"""

import contextlib
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import atomic_file, explain_os_error, locked, scratch_folder
from maquette.artifacts.manifest import digest_of_files
from maquette.artifacts.progress import say
from maquette.tracking.buffer import LONGEST_LOCK, is_locked
from maquette.tracking.config import EMBEDDED, TrackingConfig, address_of, store_uri
from maquette.tracking.mlflow_pages import describe_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

Result = TypeVar("Result")

_ARTIFACTS = "mlartifacts"
_CONTINUES = "maquette.experiment"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
_WITHOUT = "logger=none trains without MLflow, tracking=none does other stages."
_PAUSE = 1.0
"""Seconds between two tries of a store that is locked."""
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def embedded_file(uri: str) -> Path | None:
    """The SQLite file behind a store's URI; None for a server."""
    return Path(uri.removeprefix(EMBEDDED)) if uri.startswith(EMBEDDED) else None


def store_folder(uri: str, outputs: Path | str) -> Path:
    """From where the folders of runs are written down: that of an embedded store, of a server's these `outputs`."""
    file = embedded_file(uri)
    return Path(outputs).absolute() if file is None else file.parent


def store_digest(config: TrackingConfig, outputs: Path | str) -> str | None:
    """SHA-256 of the embedded store, which changes with whatever is recorded in it; None for a server."""
    file = embedded_file(store_uri(config, outputs))
    return None if file is None else digest_of_files(file.parent, f"{file.name}*")


def name_of(uri: str) -> str:
    """The store's name in messages."""
    file = embedded_file(uri)
    return f"the MLflow store {file}" if file is not None else f"the tracking server {uri}"


def open_client(uri: str) -> "MlflowClient":
    """A client of the store at `uri`; MLflow's global state (`mlflow.set_tracking_uri`) is left alone.

    Raises `StageError` for a file that is not SQLite's: MLflow would try to open it for 100 seconds.
    """
    _import_quietly()
    from mlflow import MlflowClient

    file = embedded_file(uri)
    if file is not None and file.exists():
        with file.open("rb") as opened:
            if opened.read(16) not in (b"", b"SQLite format 3\0"):
                raise _store_error(uri, ValueError("file is not a database"))
    return MlflowClient(tracking_uri=address_of(uri))


def _import_quietly() -> None:
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")  # in a notebook, for a bar that is not drawn
        import mlflow  # noqa: F401

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it prints what it then raises


@contextlib.contextmanager
def impatient() -> Iterator[None]:
    """An unreachable server is reported after seconds, not minutes: a user may be waiting, and what a run records is
    tried again by its buffer. Settings of one's own in the environment are kept.
    """
    added = {key: value for key, value in _PATIENCE.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def prepare_store(config: TrackingConfig, outputs: Path | str, *, num_nodes: int = 1) -> str:
    """Makes the embedded store where it is missing, and the experiment; returns the store's URI.

    Call it in the parent process before jobs start in parallel. Raises `ConfigError` where several machines would
    share a SQLite file, `StageError` where the store can't be opened or reached.
    """
    uri = store_uri(config, outputs)
    file = embedded_file(uri)
    if file is not None and num_nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={num_nodes}: a SQLite file can't be shared by machines.",
            "Start `mlflow server` on one, and give logger.mlflow.tracking_uri=http://host:5000; or logger=none.",
        )
    with explained(uri), impatient(), locked(file) if file is not None else contextlib.nullcontext():
        if file is not None and not file.exists():
            _create(file)
        wait_while_locked(name_of(uri), lambda: _prepare_experiment(open_client(uri), uri, config.experiment))
    return uri


def _prepare_experiment(client: "MlflowClient", uri: str, name: str) -> None:
    describe_experiment(client, client.get_experiment(ensure_experiment(client, uri, name)))


def wait_while_locked(store: str, call: Callable[[], Result]) -> Result:
    """What `call` gives, tried again as long as another process holds the embedded store locked, which is said once.
    Raises what it raises where that takes longer than `LONGEST_LOCK`."""
    began = announced = time.monotonic()
    while True:
        try:
            return call()
        except Exception as error:
            if not is_locked(error) or time.monotonic() - began > LONGEST_LOCK:
                raise
        if announced == began:
            announced = time.monotonic()
            say(f"{store} is locked by another process: waiting for it, up to {LONGEST_LOCK / 60:.0f} minutes")
        time.sleep(_PAUSE)


def _create(file: Path) -> None:
    """MLflow's tables in a new file, which takes its name only when it is whole."""
    try:
        with atomic_file(file) as whole, scratch_folder(file) as folder:
            draft = folder / "draft.db"
            open_client(f"{EMBEDDED}{draft}").get_experiment("0")
            shutil.copyfile(draft, whole)
    except OSError as error:
        raise explain_os_error(error, file) from error


def find_experiments(client: "MlflowClient", uri: str, name: str | None) -> "list[Experiment]":
    """The experiment `name` and, in an embedded store, those that continue it; all experiments where it is None."""
    if name is not None and embedded_file(uri) is None:
        match = client.get_experiment_by_name(name)
        return [] if match is None else [match]
    return [match for match in client.search_experiments() if name in (None, match.name, match.tags.get(_CONTINUES))]


def is_in_place(uri: str, artifacts: str) -> bool:
    """Whether an experiment's artifacts go where the store is. MLflow keeps absolute paths: where the folder of an
    embedded store was moved or copied, they would go to the old place, perhaps another machine's."""
    file = embedded_file(uri)
    return file is None or artifacts == str(file.parent / _ARTIFACTS) or Path(artifacts).name != _ARTIFACTS


def ensure_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """The id of the experiment `name`, made where it is missing.

    Where the folder of an embedded store was moved, new runs go to an experiment that continues the old one, named
    after the new place.
    """
    from mlflow.exceptions import MlflowException

    file = embedded_file(uri)
    artifacts = str(file.parent / _ARTIFACTS) if file is not None else None
    for match in find_experiments(client, uri, name):
        if match.lifecycle_stage == "active" and is_in_place(uri, match.artifact_location):
            return str(match.experiment_id)
    named = client.get_experiment_by_name(name)
    if named is not None and named.lifecycle_stage == "deleted":
        raise StageError(
            f"The MLflow experiment '{name}' was deleted.",
            "Bring it back in MLflow, or choose another: logger.mlflow.experiment_name or tracking.experiment.",
        )
    try:
        if named is None or file is None:
            return client.create_experiment(name, artifact_location=artifacts)
        return client.create_experiment(f"{name} ({file.parent})", artifacts, tags={_CONTINUES: name})
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or named is not None:
            raise
        return ensure_experiment(client, uri, name)  # another process was faster


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns what MLflow, SQLAlchemy or the network raise into a `StageError` that names the store."""
    _import_quietly()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        # A library's own words may hold the password that the address has.
        raise _store_error(uri, error) from (error if address_of(uri) == uri else None)


def _store_error(uri: str, error: Exception) -> StageError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__).removesuffix(".")
    file = embedded_file(uri)
    if file is None:
        return StageError(
            f"The tracking server {uri} could not be used: {reason[:300]}.",
            f"Start it or correct its address. {_WITHOUT}",
        )
    if "out-of-date database schema" in str(error):
        return StageError(
            f"{file} was made by another version of MLflow.", f"Bring it up to date: mlflow db upgrade {uri}"
        )
    if is_locked(error):
        return StageError(
            f"The MLflow store {file} is still locked by another process after {LONGEST_LOCK:.0f} seconds.",
            f"End the process that writes to it, or put the results elsewhere with outputs=<folder>. {_WITHOUT}",
        )
    return StageError(
        f"The MLflow store {file} can't be used: {reason[:300]}.",
        f"Free some space, or put the results elsewhere with outputs=<folder>. {_WITHOUT}",
    )
