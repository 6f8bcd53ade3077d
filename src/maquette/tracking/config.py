"""Settings of the record that runs leave in MLflow.

A training run's is a Lightning logger among others (`logger.mlflow`); the other stages, which have no Trainer, say
where MLflow keeps theirs (`tracking`).
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from maquette.artifacts.errors import ConfigError, without_secrets
from maquette.artifacts.settings import setting
from maquette.artifacts.targets import node_values, target_of, with_values

EMBEDDED = "sqlite:///"
_SERVERS = ("http", "https", "databricks", "postgresql", "mysql", "mssql")


@dataclass
class TrackingConfig:
    enabled: bool = setting(True, "record runs in MLflow")
    uri: str | None = setting(None, "MLflow tracking server; by default the embedded store <outputs>/mlflow.db")
    experiment: str = setting("maquette", "MLflow experiment")
    run_name: str | None = setting(None, "name of the run; by default its size, tokens and fingerprint")
    parent: str | None = setting(None, "MLflow run id of the parent run (a sweep sets it)")

    def __post_init__(self) -> None:
        self.uri = self.uri and hide_login(self.uri)

    def validate(self) -> None:
        """Raises `ConfigError` for an address that is not one of a store."""
        store_uri(self, "")


@dataclass
class MLflowLoggerConfig:
    """`logger.mlflow`: metrics, settings, tags and figures of every run."""

    _target_: str = setting("maquette.tracking.MLflowLogger", "the logger's class")
    experiment_name: str = setting("maquette", "MLflow experiment")
    tracking_uri: str | None = setting(
        None, "http://host:port or sqlite:///<file>; by default MLFLOW_TRACKING_URI's server, else <save_dir>/mlflow.db"
    )
    save_dir: str = setting("outputs", "folder of mlflow.db")
    run_name: str | None = setting(None, "by default the run's own name")
    run_id: str | None = setting(None, "an MLflow run to resume; by default the run's own, when it resumes")
    parent_run_id: str | None = setting(None, "the MLflow run that this one is shown under; a sweep sets it")
    tags: dict[str, str] = setting(dict, "more tags")
    prefix: str = setting("", "stands before each metric's name")
    num_nodes: int = setting(1, "machines; with more than one a server is needed", minimum=1)

    def __post_init__(self) -> None:
        self.tracking_uri = self.tracking_uri and hide_login(self.tracking_uri)

    def validate(self) -> None:
        """Raises `ConfigError` for an address that is not one of a store."""
        store_uri(TrackingConfig(uri=self.tracking_uri), self.save_dir)


_KEYS = {"uri": "tracking_uri", "experiment": "experiment_name", "run_name": "run_name", "parent": "parent_run_id"}
"""What the logger's arguments, whose names are Lightning's, are called where there is no Trainer."""

_OURS = (MLflowLoggerConfig._target_, "maquette.tracking.logger.MLflowLogger")


def mlflow_node(logger: Mapping[str, Any]) -> str | None:
    """The name of that node of the group `logger` which is our MLflow logger; None where there is none."""
    return next((name for name, node in logger.items() if node is not None and target_of(node) in _OURS), None)


def tracking_of(logger: Mapping[str, Any], outputs: Path | str) -> TrackingConfig:
    """Where MLflow has the record of a training run with these loggers, for what is recorded beside it: its sweep, its
    evaluation. Disabled where our logger is not among them."""
    name = mlflow_node(logger)
    if name is None:
        return TrackingConfig(enabled=False)
    node = dataclasses.asdict(MLflowLoggerConfig(save_dir=str(outputs))) | node_values(logger[name])
    if node["tracking_uri"] is None and Path(node["save_dir"]).absolute() != Path(outputs).absolute():
        node["tracking_uri"] = store_uri(TrackingConfig(), node["save_dir"])
    return TrackingConfig(**{own: node[key] for own, key in _KEYS.items()})


def with_tracking(logger: Mapping[str, Any], tracking: TrackingConfig, outputs: Path | str) -> dict[str, Any]:
    """The loggers with ours recording where `tracking` says, or left out; where it is not among them, it stays so."""
    name = mlflow_node(logger)
    if name is None:
        return dict(logger)
    if not tracking.enabled:
        return {key: node for key, node in logger.items() if key != name}
    values = {key: getattr(tracking, own) for own, key in _KEYS.items()}
    return {**logger, name: with_values(logger[name], save_dir=str(outputs), **values)}


def store_uri(config: TrackingConfig, outputs: Path | str) -> str:
    """MLflow's URI of the store: `config.uri`, or the server that MLFLOW_TRACKING_URI names, or the embedded store
    (with an absolute path, as MLflow needs it).

    A file named by that variable is not meant for these `outputs`: `mlflow.set_tracking_uri` leaves the file that was
    last looked at in it, for child processes. Raises `ConfigError` for a URI that is not one of a store.
    """
    uri = config.uri
    if uri is None and _is_server(named := os.environ.get("MLFLOW_TRACKING_URI", "")):
        uri = named
    if uri is None:
        return f"{EMBEDDED}{Path(outputs).absolute() / 'mlflow.db'}"
    if uri.startswith(EMBEDDED):
        return f"{EMBEDDED}{Path(uri.removeprefix(EMBEDDED)).absolute()}"
    if _is_server(uri):
        return hide_login(uri)
    raise ConfigError(
        f"{uri} is not the address of a store.",
        "Write http://host:port for a server or sqlite:///<file> for a file; leave it out for <outputs>/mlflow.db.",
    )


_LOGINS = "MAQUETTE_TRACKING_LOGINS"
"""The variable that tells child processes the addresses with which to connect, by what may be shown of each."""


def hide_login(uri: str) -> str:
    """A server's address without user and password, with which it is known from then on: the whole of it stays in this
    process's environment, for `address_of`, and is never printed or stored."""
    shown = without_secrets(uri)
    if shown != uri:
        os.environ[_LOGINS] = json.dumps(json.loads(os.environ.get(_LOGINS, "{}")) | {shown: uri})
    return shown


def address_of(uri: str) -> str:
    """The whole address of a server, to connect with."""
    return str(json.loads(os.environ.get(_LOGINS, "{}")).get(uri, uri))


def _is_server(uri: str) -> bool:
    return uri == "databricks" or urlsplit(uri).scheme.partition("+")[0] in _SERVERS
