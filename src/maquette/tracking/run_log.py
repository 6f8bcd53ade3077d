"""One run in MLflow, from start to finish: `start_run` gives a `RunLog`, which never makes a training step wait."""

import contextlib
import getpass
import json
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import ConfigError, without_secrets
from maquette.artifacts.files import listed, portable, write_text
from maquette.artifacts.progress import say
from maquette.artifacts.settings import flatten
from maquette.tracking.buffer import Buffer, Point
from maquette.tracking.config import TrackingConfig
from maquette.tracking.environment import PARENT_TAG, describe_environment, process_tag
from maquette.tracking.mlflow_pages import NOTE
from maquette.tracking.store import (
    ensure_experiment,
    explained,
    impatient,
    is_in_place,
    name_of,
    open_client,
    prepare_store,
    store_folder,
    wait_while_locked,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UNWRITTEN = "metrics-unwritten.jsonl"
"""File in a run's folder for points that the store never took."""

NOT_IN_NAMES = re.compile(r"[^\w./ :-]")
"""Characters that MLflow takes in no name of a metric, parameter or tag."""

_LONGEST_NAME, _LONGEST_TEXT = 250, 6000
_DIGEST = 8  # characters of a dataset's digest
_REUSED = "reused.from"
_ENTITIES = 100  # the most parameters or tags that MLflow takes in one call
_POINTS = 1000  # of metrics


class RunLog:
    """What a run writes to while it goes. Every method returns at once; a thread carries it to the store.

    With tracking switched off (`run_id` is None) it has the same methods, and they do nothing.
    """

    def __init__(
        self,
        client: "MlflowClient | None" = None,
        run_id: str | None = None,
        *,
        store: str = "",
        folder: Path | None = None,
        params: Mapping[str, str] | None = None,
    ) -> None:
        """`store` names the store in messages; `folder` is the run's own; `params` are those it already has."""
        self.client, self.run_id = client, run_id
        self._store, self._folder = store, folder
        self._params = dict(params or {})
        self._valid_names: set[str] = set()
        self._buffer = Buffer(self._write, store) if client is not None else None

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """A value of each of the named metrics at `step`: numbers, not tensors.

        Raises `ConfigError` for a name that MLflow can't store.
        """
        if self._buffer is None:
            return
        now = time.time_ns() // 1_000_000
        if not self._valid_names.issuperset(metrics):
            self._check_names(metrics)
        self._buffer.add_points([Point(key, float(value), now, step) for key, value in metrics.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings of the run, nested ones as dotted names. MLflow keeps the first value of each; one that differs
        later (a run resumed on other hardware) is kept as the tag `resumed.<name>`."""
        # Characters that MLflow takes in no name become `_`.
        flat = {NOT_IN_NAMES.sub("_", key): _text(value) for key, value in flatten(params).items()}
        new = {key: value for key, value in flat.items() if key not in self._params}
        changed = {f"resumed.{key}": value for key, value in flat.items() if self._params.get(key, value) != value}
        self._params.update(new)
        if new:
            self._call("parameters", lambda client, run_id: _log_batch(client, run_id, params=new))
        if changed:
            self.set_tags(changed)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags of the run; a later value replaces an earlier one."""
        values = _texts(tags)
        self._check_names(values)
        self._call("tags", lambda client, run_id: _log_batch(client, run_id, tags=values))

    def describe(self, markdown: str) -> None:
        """What MLflow's pages show as the run's description."""
        self.set_tags({NOTE: markdown})

    def log_datasets(self, datasets: Mapping[str, str]) -> None:
        """The data that the run reads, by name, with the digest of each."""

        def log(client: "MlflowClient", run_id: str) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag
            from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

            context = InputTag(MLFLOW_DATASET_CONTEXT, "training")
            inputs = [
                DatasetInput(Dataset(name, digest[:_DIGEST], "local", json.dumps({"name": name})), [context])
                for name, digest in datasets.items()
            ]
            client.log_inputs(run_id, inputs)

        self._call("datasets", log)

    def show_again(self, run_id: str) -> None:
        """Shows a run of another experiment below this one: a copy with its settings, newest metrics and tags, which
        names it in the tag `reused.from`. A run of this experiment, or with such a copy, stays as it is."""
        self._call(f"the run {run_id}", partial(_show_again, run_id))

    def log_artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Copies a file, or what is in a folder and not hidden, into the run's artifacts, under `folder`."""
        path = Path(path)

        def copy(client: "MlflowClient", run_id: str) -> None:
            if not path.is_dir():
                client.log_artifact(run_id, str(path), folder)
            for file in [one for one in listed(path, "**/*") if one.is_file()]:
                below = posixpath.join(folder or "", file.parent.relative_to(path).as_posix())
                client.log_artifact(run_id, str(file), posixpath.normpath(below) if below != "." else None)

        self._call(f"the artifact {path.name}", copy)

    def flush(self) -> bool:
        """Waits until everything so far is in the store; False where the store fails."""
        return self._buffer is None or self._buffer.flush()

    def finish(self, status: str) -> None:
        """Writes what is left and gives the run its `status`. Warns of what could not be recorded; points that the
        store did not take go to `UNWRITTEN` in the run's folder. Never raises for a store that fails."""
        if self._buffer is None or self.client is None or self.run_id is None:
            return
        lost, points = self._buffer.drain()
        try:
            with impatient():
                wait_while_locked(self._store, partial(self.client.set_terminated, self.run_id, status))
        except Exception:  # the store fails: said below, and the run folder has the result
            lost.append(f"that the run is {status}")
        if lost:
            say(f"warning: {self._store} lacks a part of the run {self.run_id}: {'; '.join(lost)}.")
        if points and self._folder is not None:
            with contextlib.suppress(Exception):  # the disk may be full here as well
                file = self._folder / UNWRITTEN
                before = file.read_text(encoding="utf-8") if file.exists() else ""
                write_text(file, before + "".join(json.dumps(point._asdict()) + "\n" for point in points))
                say(f"The missing points are in {file}.")

    def _write(self, points: Sequence[Point]) -> None:
        assert self.client is not None and self.run_id is not None
        with impatient():
            _log_points(self.client, self.run_id, points)

    def _call(self, name: str, action: "Callable[[MlflowClient, str], None]") -> None:
        client, run_id = self.client, self.run_id
        if self._buffer is None or client is None or run_id is None:
            return

        def run() -> None:
            with impatient():
                action(client, run_id)

        self._buffer.add_call(name, run)

    def _check_names(self, names: Mapping[str, Any]) -> None:
        for name in names:
            is_path = posixpath.normpath(name) == name and not name.startswith(("/", ".."))
            if not name or len(name) > _LONGEST_NAME or NOT_IN_NAMES.search(name) or not is_path or name == ".":
                raise ConfigError(
                    f"'{name}' can't be the name of a metric or tag in MLflow.",
                    "Use letters, digits, . / _ - : and spaces.",
                )
        self._valid_names.update(names)


def open_run(
    config: TrackingConfig,
    *,
    outputs: Path | str,
    name: str | None,
    folder: Path | str,
    tags: Mapping[str, Any],
    run_id: str | None = None,
    num_nodes: int = 1,
) -> RunLog:
    """Begins a run called `name` (`config.run_name` wins; MLflow finds one where both are None), or resumes `run_id`.

    Raises `StageError` where the store can't be written or reached, `ConfigError` for a SQLite store with several
    machines.
    """
    from mlflow.exceptions import MlflowException

    folder = Path(folder)
    uri = prepare_store(config, outputs, num_nodes=num_nodes)
    tags = {**describe_environment(), **process_tag(), "folder": portable(folder, store_folder(uri, outputs)), **tags}

    def opened() -> RunLog:
        client, moved = open_client(uri), None
        if run_id is not None:
            try:
                stored = client.get_run(run_id)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                stored = None
            if stored is None or stored.info.lifecycle_stage != "active":
                say(f"the MLflow run {run_id} of {folder} is gone: a new one begins")
            elif is_in_place(uri, client.get_experiment(stored.info.experiment_id).artifact_location):
                client.update_run(run_id, status="RUNNING")
                log = RunLog(client, run_id, store=name_of(uri), folder=folder, params=stored.data.params)
                log.set_tags(tags)
                return log
            else:
                moved = stored
        experiment = ensure_experiment(client, uri, config.experiment)
        whole = {"mlflow.user": _user(), "mlflow.source.name": "maquette", PARENT_TAG: config.parent, **tags}
        run = client.create_run(experiment, run_name=config.run_name or name, tags=_texts(whole))
        if moved is not None:
            say(f"the store was moved since the MLflow run {run_id}: {run.info.run_id} continues it")
            _copy_metrics(client, moved, run.info.run_id)
            client.set_terminated(moved.info.run_id, "KILLED")
        return RunLog(client, run.info.run_id, store=name_of(uri), folder=folder)

    with explained(uri), impatient():
        return wait_while_locked(name_of(uri), opened)


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

    `run_id` resumes an earlier run: its curves continue, and it is RUNNING again. At the end the run is FINISHED, or
    FAILED where the block raised, or KILLED where it was interrupted. Raises as `open_run`; later failures of the store
    are reported, never raised.
    """
    if not config.enabled:
        yield RunLog()
        return
    log = open_run(config, outputs=outputs, name=name, folder=folder, tags=tags, run_id=run_id, num_nodes=num_nodes)
    status = "FAILED"
    try:
        log.log_params(params)
        yield log
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        status = "KILLED"
        raise
    finally:
        log.finish(status)


def start_parent_run(
    config: TrackingConfig,
    *,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    **where: Any,
) -> contextlib.AbstractContextManager[RunLog]:
    """`start_run` for a run that others belong to, such as a sweep: its `run_id` is the children's `tracking.parent` or
    `logger.mlflow.parent_run_id`. Made in the parent process, it also makes the store, so that children can start in
    parallel."""
    return start_run(config, params=params or {}, tags={"kind": "parent", **(tags or {})}, **where)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: _text(value) for key, value in values.items() if value is not None}


def _text(value: Any) -> str:
    text = str(value) if isinstance(value, str | Path) else json.dumps(value, default=str, ensure_ascii=False)
    text = without_secrets(text)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _log_batch(
    client: "MlflowClient",
    run_id: str,
    *,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    from mlflow.entities import Param, RunTag

    every_param = [Param(key, value) for key, value in (params or {}).items()]
    every_tag = [RunTag(key, value) for key, value in (tags or {}).items()]
    for start in range(0, max(len(every_param), len(every_tag)), _ENTITIES):
        part = slice(start, start + _ENTITIES)
        client.log_batch(run_id, params=every_param[part], tags=every_tag[part])


def _show_again(run_id: str, client: "MlflowClient", parent: str) -> None:
    stored, here = client.get_run(run_id), client.get_run(parent).info.experiment_id
    if stored.info.experiment_id == here:
        return
    copies = client.search_runs([here], f"tags.`{_REUSED}` = '{run_id}' and tags.`{PARENT_TAG}` = '{parent}'")
    if copies and copies[0].info.status != "RUNNING":
        return
    own = {key: value for key, value in stored.data.tags.items() if key not in (PARENT_TAG, "mlflow.runName")}
    tags = {**own, PARENT_TAG: parent, _REUSED: run_id}
    info = stored.info
    copy = copies[0] if copies else client.create_run(here, info.start_time, tags, run_name=info.run_name)
    _log_batch(client, copy.info.run_id, params=stored.data.params)
    points = [(key, value, info.end_time or info.start_time, 0) for key, value in stored.data.metrics.items()]
    _log_points(client, copy.info.run_id, points)
    client.set_terminated(copy.info.run_id, info.status, info.end_time)


def _copy_metrics(client: "MlflowClient", source: "Run", run_id: str) -> None:
    """The curves so far, so that they continue."""
    keys = source.data.metrics
    history = [point for key in keys for point in client.get_metric_history(source.info.run_id, key)]
    _log_points(client, run_id, [(point.key, point.value, point.timestamp, point.step) for point in history])


def _log_points(client: "MlflowClient", run_id: str, points: Sequence[tuple[str, float, int, int]]) -> None:
    from mlflow.entities import Metric

    for start in range(0, len(points), _POINTS):
        client.log_batch(run_id, metrics=[Metric(*point) for point in points[start : start + _POINTS]])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
