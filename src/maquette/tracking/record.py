"""One run in MLflow, from start to finish: `start_run` gives a `RunLog`, which never makes a training step wait."""

import contextlib
import getpass
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import write_text
from maquette.artifacts.progress import say
from maquette.tracking.client import impatient, open_client
from maquette.tracking.config import TrackingConfig
from maquette.tracking.environment import describe_environment
from maquette.tracking.lineage import PARENT_TAG
from maquette.tracking.process import process_tag
from maquette.tracking.sinks import Point, open_sink
from maquette.tracking.store import embedded_file, explained, prepare_store
from maquette.tracking.writer import Writer

if TYPE_CHECKING:
    from mlflow import MlflowClient

UNWRITTEN = "metrics-unwritten.jsonl"
"""File in a run's folder for points that the store never took."""

_LONGEST = 6000  # characters of a parameter or tag that MLflow takes
_NAME = re.compile(r"[\w./ :-]{1,250}")
_NOT_IN_NAMES = re.compile(r"[^\w./ :-]")


class RunLog:
    """What a run writes to while it goes. Every method returns at once; a thread carries it to the store.

    With tracking switched off (`run_id` is None) it has the same methods, and they do nothing.
    """

    def __init__(
        self, client: "MlflowClient | None" = None, run_id: str | None = None, writer: Writer | None = None
    ) -> None:
        self._client, self._writer = client, writer
        self._known_names: set[str] = set()
        self._params: dict[str, str] = {}
        self.run_id = run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """A point on each of the named curves at `step`. Values are numbers, not tensors.

        Raises `ConfigError` for a name that MLflow can't store.
        """
        if self._writer is None:
            return
        now = time.time_ns() // 1_000_000
        if not self._known_names.issuperset(metrics):
            self._check_names(metrics)
        self._writer.add_points([Point(key, float(value), now, step) for key, value in metrics.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings of the run, nested ones as dotted names. MLflow keeps the first value of each; one that differs
        later (a run resumed on other hardware) is kept as the tag `resumed.<name>`."""
        flat = flatten(params)
        new = {key: value for key, value in flat.items() if key not in self._params}
        changed = {f"resumed.{key}": value for key, value in flat.items() if self._params.get(key, value) != value}
        self._params.update(new)
        if new:
            self._call("parameters", lambda client, run_id: _log_batch(client, run_id, params=new))
        if changed:
            self.set_tags(changed)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags of the run; a later value replaces an earlier one."""
        values = {key: _text(value) for key, value in tags.items() if value is not None}
        self._check_names(values)
        self._call("tags", lambda client, run_id: _log_batch(client, run_id, tags=values))

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Copies a file or folder into the run's artifacts, under `folder`."""
        path = Path(path)

        def copy(client: "MlflowClient", run_id: str) -> None:
            (client.log_artifacts if path.is_dir() else client.log_artifact)(run_id, str(path), folder)

        self._call(f"the artifact {path.name}", copy)

    def flush(self) -> bool:
        """Waits until everything so far is in the store; False where the store fails."""
        return self._writer is None or self._writer.flush()

    def _call(self, name: str, action: "Callable[[MlflowClient, str], None]") -> None:
        client, run_id = self._client, self.run_id
        if self._writer is not None and client is not None and run_id is not None:
            self._writer.add_action(name, lambda: action(client, run_id))

    def _check_names(self, names: Mapping[str, Any]) -> None:
        for name in names:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"'{name}' can't be the name of a metric or tag in MLflow.",
                    "Use letters, digits, . / _ - : and spaces.",
                )
        self._known_names.update(names)


@contextlib.contextmanager
def start_run(
    config: TrackingConfig,
    *,
    outputs: Path | str,
    name: str,
    folder: Path | str,
    params: Mapping[str, Any],
    tags: Mapping[str, Any],
    run_id: str | None = None,
    num_nodes: int = 1,
) -> Iterator[RunLog]:
    """Records the block as a run called `name` (`config.run_name` wins), whose own files are in `folder`.

    `run_id` continues an earlier run: its curves go on, and it is RUNNING again. At the end the run is FINISHED, or
    FAILED where the block raised, or KILLED where it was interrupted. Raises `StageError` where the store can't be
    written or reached at the start, `ConfigError` for a SQLite store with several machines; later failures of the store
    are told, never raised.
    """
    if not config.enabled:
        yield RunLog()
        return
    uri = prepare_store(config, outputs, num_nodes=num_nodes)
    with explained(uri), impatient():
        client = open_client(uri)
        run_id, known = _begin(client, config, config.run_name or name, Path(folder), run_id)
        writer = Writer(open_sink(uri, embedded_file(uri), run_id), _called(uri))
    record = RunLog(client, run_id, writer)
    record._params.update(known)
    record.log_params(params)
    record.set_tags({**describe_environment(), **process_tag(), "folder": str(Path(folder).absolute()), **tags})
    status = "FAILED"
    try:
        yield record
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        status = "KILLED"
        raise
    finally:
        _end(client, run_id, status, writer, Path(folder), _called(uri))


@contextlib.contextmanager
def start_parent_run(
    config: TrackingConfig,
    *,
    outputs: Path | str,
    name: str,
    folder: Path | str,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> Iterator[RunLog]:
    """A run that others belong to, such as a sweep: give its `run_id` to the children as `tracking.parent`.

    Made in the parent process, it also makes the store, so that children can start in parallel.
    """
    kind = {"kind": "parent", **(tags or {})}
    with start_run(
        config, outputs=outputs, name=name, folder=folder, params=params or {}, tags=kind, run_id=run_id
    ) as record:
        yield record


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and text: `{"model": {"hidden_size": 64}}` is `{"model.hidden_size": "64"}`.

    Characters that MLflow takes in no name become `_`.
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = prefix + _NOT_IN_NAMES.sub("_", str(key))
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = _text(value)
    return flat


def _text(value: Any) -> str:
    text = str(value) if isinstance(value, str | Path) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _begin(
    client: "MlflowClient", config: TrackingConfig, name: str, folder: Path, run_id: str | None
) -> tuple[str, dict[str, str]]:
    """The run's id, and the parameters that it already has."""
    from mlflow.exceptions import MlflowException

    if run_id is not None:
        try:
            found = client.get_run(run_id)
            if found.info.lifecycle_stage == "active":
                client.update_run(run_id, status="RUNNING")
                return run_id, dict(found.data.params)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        say(f"the MLflow run {run_id} of {folder} is gone: its record starts anew")
    experiment = client.get_experiment_by_name(config.experiment)
    assert experiment is not None  # prepare_store made it
    tags = {"mlflow.user": _user(), "mlflow.source.name": "maquette"}
    if config.parent is not None:
        tags[PARENT_TAG] = config.parent
    return client.create_run(experiment.experiment_id, run_name=name, tags=tags).info.run_id, {}


def _end(client: "MlflowClient", run_id: str, status: str, writer: Writer, folder: Path, store: str) -> None:
    lost = writer.close()
    try:
        client.set_terminated(run_id, status)
    except Exception:  # the store fails: said below, and the run folder has the result
        lost.append(f"that the run is {status}")
    if lost:
        say(f"warning: {store} lacks a part of the run {run_id}: {'; '.join(lost)}.")
    if points := writer.unwritten:
        with contextlib.suppress(Exception):  # the disk may be full here as well
            write_text(folder / UNWRITTEN, "".join(json.dumps(point._asdict()) + "\n" for point in points))
            say(f"The missing points are in {folder / UNWRITTEN}.")


def _log_batch(
    client: "MlflowClient",
    run_id: str,
    *,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """In batches of 100, the most that MLflow takes."""
    from mlflow.entities import Param, RunTag

    every_param = [Param(key, value) for key, value in (params or {}).items()]
    every_tag = [RunTag(key, value) for key, value in (tags or {}).items()]
    for start in range(0, max(len(every_param), len(every_tag)), 100):
        part = slice(start, start + 100)
        client.log_batch(run_id, params=every_param[part], tags=every_tag[part])


def _called(uri: str) -> str:
    file = embedded_file(uri)
    return f"the MLflow store {file}" if file is not None else f"the tracking server {uri}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
