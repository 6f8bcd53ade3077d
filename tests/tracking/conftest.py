"""One MLflow store, made once (its tables take a second), and copied for each test."""

import shutil
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
    """A folder with a store of its own. Its experiment is that of `empty_store`, moved here as a user might."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return folder
