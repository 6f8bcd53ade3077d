"""A run's record as MLflow itself reads it back."""

import contextlib
import json
import math
import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from maquette.artifacts import ConfigError
from maquette.tracking import TrackingConfig, find_runs, run_log, start_parent_run, start_run
from maquette.tracking.search import mlflow_page


def run(outputs: Path, **changes: object):  # type: ignore[no-untyped-def]
    settings = {"config": TrackingConfig(), "name": "run", "folder": outputs / "runs" / "run", "params": {}, "tags": {}}
    settings.update(changes)
    return start_run(settings.pop("config"), outputs=outputs, **settings)  # type: ignore[arg-type]


def client(outputs: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{outputs / 'mlflow.db'}")


def test_a_finished_run_has_what_was_logged(outputs: Path, tmp_path: Path) -> None:
    figure = tmp_path / "loss.svg"
    figure.write_text("<svg/>")
    params = {"size": "300k", "model": {"hidden_size": 64, "bias": None}, "mixture": {"a,b": 0.5}}
    with run(outputs, params=params, tags={"digest.tokens": "abc", "path": tmp_path}) as log:
        for step in range(3):
            log.log_metrics({"loss": 3.0 - step, "validation/loss/code": 2.0}, step)
        log.log_artifact(figure, "figures")
        log.log_params({"size": "400k", "parameters": 300_123})
    result = client(outputs).get_run(log.run_id)
    assert result.info.status == "FINISHED"
    assert result.info.run_name == "run"
    expected = {
        "size": "300k",
        "model.hidden_size": "64",
        "model.bias": "null",
        "mixture.a_b": "0.5",
        "parameters": "300123",
    }
    assert result.data.params == expected
    assert result.data.metrics == {"loss": 1.0, "validation/loss/code": 2.0}
    assert result.data.tags["resumed.size"] == "400k"
    assert result.data.tags["digest.tokens"] == "abc"
    assert result.data.tags["version.torch"]
    assert result.data.tags["path"] == str(tmp_path)
    assert [(m.step, m.value) for m in client(outputs).get_metric_history(log.run_id, "loss")] == [
        (0, 3.0),
        (1, 2.0),
        (2, 1.0),
    ]
    assert (outputs / "mlartifacts" / log.run_id / "artifacts" / "figures" / "loss.svg").read_text() == "<svg/>"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_the_status_tells_how_a_run_ended(outputs: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), run(outputs) as log:
        log.log_metrics({"loss": 1.0}, 0)
        raise error
    result = client(outputs).get_run(log.run_id)
    assert result.info.status == status
    assert result.data.metrics == {"loss": 1.0}


def test_a_resumed_run_goes_on_with_its_curves(outputs: Path) -> None:
    with pytest.raises(KeyboardInterrupt), run(outputs, params={"size": "1m"}) as first:
        first.log_metrics({"loss": 3.0}, 0)
        raise KeyboardInterrupt
    with run(outputs, params={"size": "1m"}, run_id=first.run_id) as second:
        assert client(outputs).get_run(first.run_id).info.status == "RUNNING"
        second.log_metrics({"loss": 2.0}, 1)
    assert second.run_id == first.run_id
    assert [m.value for m in client(outputs).get_metric_history(first.run_id, "loss")] == [3.0, 2.0]
    assert client(outputs).get_run(first.run_id).info.status == "FINISHED"


def test_a_run_that_is_gone_from_the_store_starts_anew(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run(outputs, run_id="0" * 32) as log:
        pass
    assert log.run_id not in (None, "0" * 32)
    assert "a new one begins" in " ".join(capsys.readouterr().err.split())


def test_children_name_their_parent(outputs: Path) -> None:
    with (
        start_parent_run(TrackingConfig(), outputs=outputs, name="sweep", folder=outputs) as parent,
        run(outputs, config=TrackingConfig(parent=parent.run_id, run_name="chosen")) as child,
    ):
        pass
    result = client(outputs).get_run(child.run_id)
    assert result.data.tags["mlflow.parentRunId"] == parent.run_id
    assert result.info.run_name == "chosen"


def test_without_tracking_the_interface_is_the_same_and_nothing_is_written(tmp_path: Path) -> None:
    with run(tmp_path, config=TrackingConfig(enabled=False)) as log:
        log.log_metrics({"loss": 1.0}, 0)
        log.log_params({"a": 1})
        log.set_tags({"b": 2})
        log.log_artifact(tmp_path / "missing.png")
        assert log.flush()
    assert log.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_mlflow_does_not_take_is_refused(outputs: Path) -> None:
    with pytest.raises(ConfigError, match="loss%"), run(outputs) as log:
        log.log_metrics({"loss%": 1.0}, 0)


def test_a_store_that_fails_in_mid_run_does_not_stop_it_and_the_points_are_saved(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("database or disk is full")

    with run(outputs) as log:
        assert log.flush()
        monkeypatch.setattr(log._buffer, "_interval", 0.01)
        monkeypatch.setattr(MlflowClient, "log_batch", full)
        log.log_metrics({"loss": 2.5}, 7)
    message = "".join(capsys.readouterr().err.split())  # lines are broken anywhere
    assert "databaseordiskisfull" in message
    assert f"lacksapartoftherun{log.run_id}:1pointsofmetrics." in message
    saved = (outputs / "runs" / "run" / run_log.UNWRITTEN).read_text()
    assert '"loss"' in saved
    assert "2.5" in saved


def test_a_store_that_is_locked_for_a_while_gets_everything(outputs: Path) -> None:
    with run(outputs) as log, contextlib.closing(sqlite3.connect(outputs / "mlflow.db", isolation_level=None)) as other:
        assert log.flush()
        other.execute("BEGIN EXCLUSIVE")
        log.log_metrics({"loss": 1.0}, 0)
        log.set_tags({"note": "written later"})
        assert not log._buffer.flush(timeout=0.3)  # type: ignore[union-attr]
        other.execute("ROLLBACK")
    result = client(outputs).get_run(log.run_id)
    assert (result.info.status, result.data.metrics, result.data.tags["note"]) == (
        "FINISHED",
        {"loss": 1.0},
        "written later",
    )


def test_repeats_and_values_that_are_not_finite_are_kept(outputs: Path) -> None:
    with run(outputs) as log:
        log.log_metrics({"loss": 2.0, "nan": math.nan, "infinite": math.inf}, 1)
        log.log_metrics({"loss": 3.0}, 0)
        assert log.flush()
        log.log_metrics({"loss": 2.0, "infinite": -math.inf}, 1)
    latest = client(outputs).get_run(log.run_id).data.metrics
    assert latest["loss"] == 2.0
    assert math.isnan(latest["nan"])
    assert {m.step for m in client(outputs).get_metric_history(log.run_id, "loss")} == {0, 1}
    assert any(m.value > 1e300 for m in client(outputs).get_metric_history(log.run_id, "infinite"))


def write_a_run(outputs: Path, number: int) -> None:
    with run(outputs, name=str(number)) as log:
        for step in range(40):
            log.log_metrics({"loss": float(step), "accuracy": 0.5}, step)
            log.flush()


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="three more processes that import MLflow")
def test_processes_write_at_once_and_nothing_is_lost(outputs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_a_run, args=(outputs, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        while process.is_alive():
            find_runs(outputs)
            process.join(0.1)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert "warning" not in capfd.readouterr().err
    ids = list(find_runs(outputs)["run_id"])
    assert len(ids) == 3
    for run_id in ids:
        assert [m.value for m in client(outputs).get_metric_history(run_id, "loss")] == list(range(40))


def test_a_name_that_is_a_path_is_refused(outputs: Path) -> None:
    with run(outputs) as log:
        for name in ("loss/", "a//b", "/a", "../a", "."):
            with pytest.raises(ConfigError):
                log.log_metrics({name: 1.0}, 0)


def test_mlflows_pages_show_training_with_its_loss(outputs: Path) -> None:
    with run(outputs, folder=outputs / "runs" / "run") as log:
        log.log_datasets({"installed (tokens)": "a" * 64})
        log.describe("# A card")
    opened = client(outputs)
    stored = opened.get_run(log.run_id)
    (given,) = stored.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest, given.tags[0].value) == (
        "installed (tokens)",
        "a" * 8,
        "training",
    )
    assert stored.data.tags["mlflow.note.content"] == "# A card" and stored.data.tags["folder"] == "runs/run"
    assert find_runs(outputs)["folder"].tolist() == [str(outputs / "runs" / "run")]
    experiment = opened.get_experiment(stored.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    view = json.loads(experiment.tags["mlflow.sharedViewState.training"])
    assert view["selectedColumns"][0] == "metrics.`validation/loss`"
    assert view["compareRunSections"][0]["name"] == "validation"
    for key in ("training", "laws", "evaluation"):
        opened.search_runs([stored.info.experiment_id], json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])[
            "searchFilter"
        ])  # fmt: skip
        assert f"viewStateShareKey={key}" in experiment.tags["mlflow.note.content"]
    page = f"#/experiments/{stored.info.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey=training"
    assert mlflow_page(outputs, TrackingConfig()).endswith(page)
    opened.set_experiment_tag(stored.info.experiment_id, "mlflow.note.content", "mine")
    with run(outputs):
        pass
    assert opened.get_experiment(stored.info.experiment_id).tags["mlflow.note.content"] == "mine"


def test_a_run_of_another_experiment_is_shown_below_this_one_once(outputs: Path) -> None:
    with run(outputs, params={"N": 10}, tags={"kind": "train", "fingerprint": "f"}) as first:
        first.log_metrics({"validation/loss": 3.0}, 7)
    other = TrackingConfig(experiment="other")
    for _ in range(2):
        with run(outputs, config=other, name="sweep", run_id=None) as sweep:
            for _ in range(2):
                sweep.show_again(str(first.run_id))
    runs = find_runs(outputs, experiment="other")
    copies = runs[runs["tags.reused.from"] == first.run_id]
    assert len(copies) == 2 and copies["parent"].nunique() == 2  # one below each of the two sweeps
    copy = copies.iloc[0]
    assert (copy["name"], copy["status"], copy["N"], copy["validation/loss"]) == ("run", "FINISHED", 10, 3.0)
    assert copy["tags.fingerprint"] == "f" and copy["folder"] == str(outputs / "runs" / "run")
    with run(outputs, name="sweep of the same experiment") as sweep:
        sweep.show_again(str(first.run_id))
    assert len(find_runs(outputs)) == 2
