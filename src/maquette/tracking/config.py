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
