"""Finding runs again: a table with a row for each run, for notebooks, laws and `maquette runs`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import relocated
from maquette.artifacts.settings import nearest
from maquette.tracking.config import TrackingConfig
from maquette.tracking.environment import PARENT_TAG, is_stale
from maquette.tracking.mlflow_pages import page_of
from maquette.tracking.store import (
    embedded_file,
    explained,
    find_experiments,
    impatient,
    name_of,
    open_client,
    store_folder,
    store_uri,
    wait_while_locked,
)

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

_PAGE = 1000  # runs in one call

ATTRIBUTES = ("name", "run_id", "status", "start", "seconds", "parent", "folder")
"""Columns that every table of runs has; `start` is a UTC time, `seconds` how long the run took."""

PARAMETERS = "parameters"
"""In `attrs` of a table of runs: which of its columns are parameters, rather than metrics or tags."""


def find_runs(
    outputs: Path | str = "outputs",
    *,
    uri: str | None = None,
    experiment: str | None = TrackingConfig.experiment,
    filter: str | None = None,
    columns: Sequence[str] | None = None,
    limit: int | None = None,
) -> "pd.DataFrame":
    """The runs in the store of `outputs` (or at `uri`), newest first, one row each.

    Columns: those of `ATTRIBUTES`; then metrics by their names (latest values), parameters by their dotted names
    (numbers and booleans where every run has such; `params.<name>` where a metric has that name too), and tags as
    `tags.<name>`. `status` is FINISHED, RUNNING, FAILED, KILLED, or STALE: a run of this machine whose process is
    gone.

    `experiment=None` looks in all of them; `filter` is MLflow's ("params.size = '300k' and metrics.loss < 3");
    `columns` keeps only those, in their order; `limit` the newest. A store that does not exist yet gives no rows.
    Raises `ConfigError` for an unknown column or a filter that can't be read, `StageError` for a store that can't be.
    """
    import pandas as pd

    address = store_uri(TrackingConfig(uri=uri), outputs)
    rows = _search(address, experiment, filter, limit)
    values, params = _columns(rows)
    root = store_folder(address, outputs)
    values["folder"] = [folder and str(relocated(root / folder, root)) for folder in values["folder"]]
    table = pd.DataFrame(values)
    table.attrs[PARAMETERS] = params
    table["start"] = pd.to_datetime(table["start"], unit="ms", utc=True)
    return table if columns is None else table[_known(columns, list(table.columns), bool(rows))]


def mlflow_page(outputs: Path | str, tracking: TrackingConfig) -> str:
    """How MLflow's own page with the runs of an experiment is opened, in a line."""
    uri = store_uri(tracking, outputs)
    with explained(uri), impatient():
        experiments = find_experiments(open_client(uri), uri, tracking.experiment)
    path = page_of(experiments[0].experiment_id) if experiments else ""
    if embedded_file(uri) is None:
        return f"{uri}/{path}"
    return f"mlflow ui --backend-store-uri {uri}, then http://127.0.0.1:5000/{path}"


def _search(uri: str, experiment: str | None, filter: str | None, limit: int | None) -> "list[Run]":
    file = embedded_file(uri)
    if file is not None and not file.exists():
        return []
    with explained(uri), impatient():
        return wait_while_locked(name_of(uri), lambda: _pages(uri, experiment, filter, limit))


def _pages(uri: str, experiment: str | None, filter: str | None, limit: int | None) -> "list[Run]":
    from mlflow.exceptions import MlflowException

    client = open_client(uri)
    ids = [experiment_run.experiment_id for experiment_run in find_experiments(client, uri, experiment)]
    runs: list[Run] = []
    token = None
    while ids:
        size = _PAGE if limit is None else min(_PAGE, limit - len(runs))
        try:
            page = client.search_runs(
                ids, filter or "", max_results=size, order_by=["attributes.start_time DESC"], page_token=token
            )
        except MlflowException as error:
            if not filter or error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise ConfigError(
                f"filter={filter} can't be read: {str(error).strip().splitlines()[0].removesuffix('.')}.",
                "Write it like: params.size = '300k' and metrics.`validation/loss` < 3 (see MLflow, Search Runs).",
            ) from error
        runs.extend(page)
        token = page.token
        if not token or len(runs) == limit:
            break
    return runs


def _columns(rows: "Sequence[Run]") -> tuple[dict[str, list[Any]], list[str]]:
    """The columns, and which of them are parameters."""
    attributes: dict[str, list[Any]] = {
        "name": [row.info.run_name for row in rows],
        "run_id": [row.info.run_id for row in rows],
        "status": [_status(row) for row in rows],
        "start": [row.info.start_time for row in rows],
        "seconds": [_seconds(row) for row in rows],
        "parent": [row.data.tags.get(PARENT_TAG) for row in rows],
        "folder": [row.data.tags.get("folder") for row in rows],
    }
    metrics = {name: [row.data.metrics.get(name) for row in rows] for name in _names(row.data.metrics for row in rows)}
    taken = attributes.keys() | metrics.keys()
    params = {
        f"params.{name}" if name in taken else name: _typed([row.data.params.get(name) for row in rows])
        for name in _names(row.data.params for row in rows)
    }
    tags = {
        f"tags.{name}": [row.data.tags.get(name) for row in rows]
        for name in _names(row.data.tags for row in rows)
        if not name.startswith("mlflow.") and name != "folder"
    }
    metrics = {f"metrics.{name}" if name in attributes else name: values for name, values in metrics.items()}
    return {**attributes, **metrics, **params, **tags}, list(params)


def _status(row: "Run") -> str:
    return "STALE" if row.info.status == "RUNNING" and is_stale(row.data.tags) else row.info.status


def _seconds(row: "Run") -> float | None:
    start, end = row.info.start_time, row.info.end_time
    return (end - start) / 1000 if start and end else None


def _names(mappings: Any) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})


def _typed(texts: list[str | None]) -> list[Any]:
    """Numbers or booleans where all the texts are; `null` is None."""
    values = [None if text in (None, "null") else _scalar(text) for text in texts]
    kinds = {
        bool if isinstance(v, bool) else float if isinstance(v, int | float) else str for v in values if v is not None
    }
    if kinds <= {float} or kinds == {bool}:
        return values
    return [None if text == "null" else text for text in texts]


def _scalar(text: str | None) -> Any:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float) else text


def _known(columns: Sequence[str], known: list[str], check: bool) -> list[str]:
    """`columns`, each of which is known (or of no run at all)."""
    for name in columns:
        if name not in known and check:
            close = nearest(name, known)
            raise ConfigError(
                f"no run has '{name}'.", f"Did you mean '{close}'?" if close else f"There are: {', '.join(known)}."
            )
    return [name for name in columns if name in known]
