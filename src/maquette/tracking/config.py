"""Settings of the record that a run leaves in MLflow."""

from dataclasses import dataclass

from maquette.artifacts.settings import setting


@dataclass
class TrackingConfig:
    enabled: bool = setting(True, "record runs in MLflow")
    uri: str | None = setting(None, "MLflow tracking server; by default the embedded store <outputs>/mlflow.db")
    experiment: str = setting("maquette", "MLflow experiment")
    run_name: str | None = setting(None, "name of the run; by default its size, tokens and fingerprint")
    parent: str | None = setting(None, "MLflow run id of the parent run (a sweep sets it)")


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
    run_id: str | None = setting(None, "an MLflow run to go on with; by default the run's own, when it resumes")
    parent_run_id: str | None = setting(None, "the MLflow run that this one is shown under; a sweep sets it")
    tags: dict[str, str] = setting(dict, "more tags")
    prefix: str = setting("", "stands before each metric's name")
    num_nodes: int = setting(1, "machines; with more than one a server is needed", minimum=1)
