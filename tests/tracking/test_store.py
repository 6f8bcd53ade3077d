"""The embedded store: made once and whole, refused clearly where it can't be."""

import multiprocessing
import shutil
import sqlite3
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.tracking import TrackingConfig, prepare_store, start_run


def test_the_store_is_whole_journalled_and_asked_for_by_absolute_path(empty_store: Path) -> None:
    uri = prepare_store(TrackingConfig(), empty_store.parent)
    assert uri == f"sqlite:///{empty_store}"
    connection = sqlite3.connect(empty_store)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    places = dict(connection.execute("SELECT name, artifact_location FROM experiments"))
    assert places["maquette"] == str(empty_store.parent / "mlartifacts")
    assert places["Default"].startswith(str(empty_store.parent))
    connection.close()
    leftovers = {path.name for path in empty_store.parent.iterdir()} - {
        "mlflow.db",
        ".mlflow.db.lock",
        "mlflow.db-shm",
        "mlflow.db-wal",
        "mlartifacts",
    }
    assert leftovers == set()


@pytest.mark.slow
def test_two_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=prepare_store, args=(TrackingConfig(), tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_second_experiment_is_made_in_the_same_store(outputs: Path) -> None:
    prepare_store(TrackingConfig(experiment="another"), outputs)
    connection = sqlite3.connect(outputs / "mlflow.db")
    names = {name for (name,) in connection.execute("SELECT name FROM experiments")}
    connection.close()
    assert names == {"Default", "maquette", "another"}


def test_artifacts_of_a_moved_folder_are_found_and_written_in_their_new_place(outputs: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    def logged(folder: Path, name: str) -> str:
        (tmp_path / name).write_text(name)
        with start_run(TrackingConfig(), outputs=folder, name=name, folder=folder, params={}, tags={}) as log:
            log.log_artifact(tmp_path / name)
        assert log.run_id is not None
        return log.run_id

    first = logged(outputs, "a.txt")
    moved = tmp_path / "moved"
    shutil.copytree(outputs, moved)
    shutil.rmtree(outputs)
    second = logged(moved, "b.txt")
    client = MlflowClient(tracking_uri=f"sqlite:///{moved / 'mlflow.db'}")
    assert [item.path for run in (first, second) for item in client.list_artifacts(run)] == ["a.txt", "b.txt"]
    assert not outputs.exists()


def test_several_machines_are_told_to_use_a_server(outputs: Path) -> None:
    with pytest.raises(ConfigError, match="mlflow server"):
        prepare_store(TrackingConfig(), outputs, num_nodes=2)


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="http://host:port"):
        prepare_store(TrackingConfig(uri="./mlruns"), tmp_path)


def test_an_unreachable_server_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = TrackingConfig(uri="http://127.0.0.1:9")
    with (
        pytest.raises(StageError, match=r"tracking server http://127.0.0.1:9 .*\n.*tracking=none"),
        start_run(config, outputs=tmp_path, name="x", folder=tmp_path, params={}, tags={}),
    ):
        pytest.fail("the run began without its record")


def test_outputs_that_are_a_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("not a folder")
    with pytest.raises(StageError, match="Can't write"):
        prepare_store(TrackingConfig(), tmp_path / "outputs")


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(StageError, match=r"mlflow\.db can't be used: file is not a database"):
        prepare_store(TrackingConfig(), tmp_path)
