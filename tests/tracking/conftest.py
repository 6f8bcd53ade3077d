"""One MLflow store, made once (its schema takes a second), and copied for each test."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from maquette.tracking import TrackingConfig, prepare_store


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("store")
    prepare_store(TrackingConfig(), outputs)
    return outputs / "mlflow.db"


@pytest.fixture
def outputs(empty_store: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    with (
        contextlib.closing(sqlite3.connect(empty_store)) as source,
        contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as target,
    ):
        source.backup(target)
    return folder
