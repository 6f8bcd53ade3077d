"""The embedded store: made once and whole, refused clearly where it can't be."""

import multiprocessing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from maquette.artifacts import ConfigError, StageError
from maquette.tracking import TrackingConfig, find_runs, prepare_store, start_run
from maquette.tracking.store import store_uri


def test_the_store_is_whole_and_asked_for_by_absolute_path(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(empty_store.parent)
    uri = prepare_store(TrackingConfig(), ".")
    assert uri == f"sqlite:///{empty_store}"
    experiment = MlflowClient(tracking_uri=uri).get_experiment_by_name("maquette")
    assert experiment is not None
    assert experiment.artifact_location == str(empty_store.parent / "mlartifacts")
    assert {path.name for path in empty_store.parent.iterdir()} - {"mlartifacts"} == {"mlflow.db", ".mlflow.db.lock"}


def test_a_server_of_the_environment_is_used_a_file_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_uri(TrackingConfig(), tmp_path) == "http://127.0.0.1:5000"
    assert store_uri(TrackingConfig(uri="http://another:5000"), tmp_path) == "http://another:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/another/mlflow.db")
    assert store_uri(TrackingConfig(), tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two more processes that import MLflow")
def test_two_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=prepare_store, args=(TrackingConfig(), tmp_path)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_second_experiment_is_made_in_the_same_store(empty_store: Path) -> None:
    uri = prepare_store(TrackingConfig(experiment="another"), empty_store.parent)
    names = {experiment.name for experiment in MlflowClient(tracking_uri=uri).search_experiments()}
    assert {"maquette", "another"} <= names


def test_a_deleted_experiment_is_told(outputs: Path) -> None:
    client = MlflowClient(tracking_uri=prepare_store(TrackingConfig(experiment="gone"), outputs))
    experiment = client.get_experiment_by_name("gone")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(StageError, match="gone"):
        prepare_store(TrackingConfig(experiment="gone"), outputs)


def test_in_a_moved_folder_new_artifacts_are_written_in_its_new_place_and_all_runs_are_found(tmp_path: Path) -> None:
    def logged(folder: Path, name: str) -> str:
        (tmp_path / name).write_text(name)
        with start_run(TrackingConfig(), outputs=folder, name=name, folder=folder, params={}, tags={}) as log:
            log.log_artifact(tmp_path / name)
        assert log.run_id is not None
        return log.run_id

    first, moved = tmp_path / "first", tmp_path / "moved"
    before = logged(first, "a.txt")
    first.rename(moved)
    after = [logged(moved, "b.txt"), logged(moved, "c.txt")]
    client = MlflowClient(tracking_uri=f"sqlite:///{moved / 'mlflow.db'}")
    assert [item.path for run in after for item in client.list_artifacts(run)] == ["b.txt", "c.txt"]
    assert not first.exists()
    assert (moved / "mlartifacts" / before / "artifacts" / "a.txt").exists()
    assert list(find_runs(moved)["run_id"]) == [*reversed(after), before]
    moved.rename(first)
    again = logged(first, "d.txt")
    client = MlflowClient(tracking_uri=f"sqlite:///{first / 'mlflow.db'}")
    assert [item.path for run in (before, again) for item in client.list_artifacts(run)] == ["a.txt", "d.txt"]


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


def test_a_run_resumed_in_a_moved_folder_leaves_the_old_place_alone(outputs: Path) -> None:
    """A store that came from another machine: its absolute paths may be another user's folders here."""
    first, moved = outputs / "first", outputs / "moved"

    def logged(folder: Path, step: int, run_id: str | None = None) -> str:
        (run := folder / "runs" / "5k").mkdir(parents=True, exist_ok=True)
        (run / f"{step}.txt").write_text("x")
        with start_run(
            TrackingConfig(), outputs=folder, name="run", folder=run, params={"size": "5k"}, tags={}, run_id=run_id
        ) as log:
            log.log_metrics({"train/loss": 3.0 - step}, step)
            log.log_artifact(run / f"{step}.txt")
        assert log.run_id is not None
        return log.run_id

    before = logged(first, 1)
    first.rename(moved)
    assert list(find_runs(moved)["folder"]) == [str(moved / "runs" / "5k")]
    after = logged(moved, 2, before)
    assert not first.exists() and logged(moved, 3, after) == after
    client = MlflowClient(tracking_uri=f"sqlite:///{moved / 'mlflow.db'}")
    assert [item.path for item in client.list_artifacts(after)] == ["2.txt", "3.txt"]
    history = client.get_metric_history(after, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert client.get_run(after).data.params == {"size": "5k"}
    assert client.get_run(before).info.status == "KILLED"
    assert set(find_runs(moved)["folder"]) == {str(moved / "runs" / "5k")}
