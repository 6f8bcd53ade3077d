"""`maquette runs` on stores with runs, without, and with other columns."""

import datetime
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from maquette.artifacts import ConfigError
from maquette.cli import runs
from maquette.cli.command_line.law_config import RunsStage
from maquette.tracking import TrackingConfig, find_runs, start_run
from maquette.tracking.runs_table import age, differences_table, results_table, short, tab_separated_runs
from maquette.training.record import begin_record
from maquette.training.run_difference import find_run
from support.small_specs import make_spec


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for size, rate in (("100k", 0.01), ("300k", 0.005)):
        params = {
            "size": size,
            "N": int(size[:-1]) * 1000,
            "D": 4_340_000,
            "C": 1.02e13,
            "optimizer": {"lr": rate},
        }
        with start_run(
            TrackingConfig(), outputs=folder, name=f"{size}-run", folder=folder, params=params, tags={}
        ) as log:
            log.log_metrics({"validation/loss": 3.04321, "validation/bits_per_byte": 1.9, "tokens": 4_340_000}, 1)
            log.log_metrics({"tokens_per_second": 12_345.0, "mfu": 0.41, "my_metric": 100 * rate}, 1)
    return folder


def test_the_table_has_the_main_numbers(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    table = runs.run(RunsStage(outputs=str(outputs)))
    shown = capsys.readouterr().out
    for text in (
        "300k-run",
        "100k-run",
        "300k",
        "4.34M",
        "1e+13",
        "3.0432",
        "1.9000",
        "12,345",
        "41%",
        "finished",
        "lr",
        "0.005",
    ):
        assert text in shown, text
    assert "sweep" not in shown
    assert list(table["N"]) == [300_000, 100_000]


def test_metrics_are_not_settings_that_differ(outputs: Path) -> None:
    table = differences_table(find_runs(outputs))
    assert table is not None and [column.header for column in table.columns] == ["run", "optimizer.lr"]


def test_own_columns_filter_and_json(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.run(RunsStage(outputs=str(outputs), columns=["optimizer.lr", "D"], filter="params.size = '300k'"))
    shown = capsys.readouterr().out
    assert "0.005" in shown
    assert "4,340,000" in shown
    assert "100k-run" not in shown
    runs.run(RunsStage(outputs=str(outputs), json=True, limit=1))
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "300k-run"
    assert row["validation/loss"] == 3.04321
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        runs.run(RunsStage(outputs=str(outputs), columns=["optimizer.lrr"]))


def test_without_runs_it_says_how_to_make_one(
    tmp_path: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(runs.run(RunsStage(outputs=str(tmp_path)))) == 0
    assert "maquette train" in capsys.readouterr().err
    runs.run(RunsStage(outputs=str(outputs), filter="params.size = '9b'"))
    assert "matches" in capsys.readouterr().err


def test_runs_that_go_on_show_how_far_and_children_their_sweep() -> None:
    now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    table = pd.DataFrame({
        "name": ["child", "sweep"], "run_id": ["1", "2"], "status": ["RUNNING", "FINISHED"],
        "start": [now - datetime.timedelta(minutes=5), now - datetime.timedelta(days=2)], "seconds": [None, 9.0],
        "parent": ["2", None], "folder": [None, None], "tokens": [50.0, float("nan")], "N": [10.0, float("nan")],
        "D": [200.0, float("nan")], "seed": [0, float("nan")],
    })  # fmt: skip
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(results_table(table, now=now))
    text = console.export_text()
    for part in ("running at 25%", "5 min", "2 d", "sweep"):
        assert part in text
    assert differences_table(table) is None


def test_a_narrow_terminal_shows_whole_numbers() -> None:
    now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    table = pd.DataFrame({
        "name": ["300k-6m-1a2b3c4d"], "run_id": ["1"], "status": ["FINISHED"], "start": [now], "parent": [None],
        "size": ["300k"], "N": [299_800], "D": [5_996_000], "C": [1.08e13], "validation/loss": [2.7183],
        "validation/bits_per_byte": [1.9123], "tokens_per_second": [12_345.0], "mfu": [0.42],
    })  # fmt: skip
    texts = {}
    for width in (80, 160):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(results_table(table, now=now, width=width))
        texts[width] = console.export_text()
    for part in ("300k-6m-1a2b3c4d", "6M", "1.1e+13", "2.7183", "1.9123", "finished"):
        assert part in texts[80] and part in texts[160]
    assert "42%" in texts[160] and "42%" not in texts[80]
    assert "…" not in texts[80]


def test_what_goes_into_a_pipe_has_all_and_the_important_first() -> None:
    table = pd.DataFrame({
        "name": ["a", "b"], "run_id": ["1", "2"], "status": ["FINISHED"] * 2, "parent": [None] * 2,
        "start": [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)] * 2, "N": [1000.0, 2000.0],
        "corpus.min_bytes": [1, 2], "epochs": [1, 2], "optimizer.lr": [0.1, 0.2], "objective.beta": ["x\ty", "z"],
        "training_seconds": [1.5, 2.5], "seed": [0, 0], "size": [77765.0, 1e4],
    })  # fmt: skip
    table.attrs["parameters"] = ["corpus.min_bytes", "epochs", "objective.beta", "optimizer.lr", "seed"]
    head, first, second = tab_separated_runs(table, now=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC))
    columns = ["objective.beta", "optimizer.lr", "epochs", "corpus.min_bytes"]
    assert head.split("\t") == ["run", "size", "N", "status", "age", *columns]
    assert first.split("\t") == ["a", "77765", "1k", "finished", "1 d", "x y", "0.1", "1", "1"]
    shown = differences_table(table)
    assert second.startswith("b\t10000\t2k") and shown is not None
    assert [column.header for column in shown.columns] == ["run", *columns]
    console = Console(width=40, record=True, file=io.StringIO())
    console.print(differences_table(table, width=40))
    narrow = console.export_text()
    assert "2 of 4" in narrow and "objective" in narrow and "corpus" not in narrow and "…" not in narrow


def test_of_a_class_and_a_path_the_part_is_shown_that_tells_them_apart() -> None:
    table = pd.DataFrame({
        "name": ["a", "b"], "N": [1000.0] * 2, "checkpoint": ["outputs/runs/30k-400k-ce893171", "imported"],
        "objective._target_": [f"maquette.objectives.{name}" for name in ("Pretraining", "SupervisedFineTuning")],
    })  # fmt: skip
    table.attrs["parameters"] = ["checkpoint", "objective._target_"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(differences_table(table, width=80))
    shown = console.export_text()
    for part in ("30k-400k-ce893171", "imported", "Pretraining", "SupervisedFineTuning"):
        assert part in shown
    assert "…" not in shown and "maquette" not in shown


def test_short_numbers() -> None:
    assert [short(n) for n in (999, 1000, 300_123, 4_340_000, 999_600, 2.5e12)] == [
        "999",
        "1k",
        "300k",
        "4.34M",
        "1M",
        "2.5T",
    ]
    assert [age(s) for s in (3, 61, 7200, 200_000)] == ["3 s", "1 min", "2 h", "2 d"]


def test_a_run_that_only_mlflow_has_is_compared(outputs: Path, tmp_path: Path) -> None:
    spec = make_spec(label="1m-4.3m")
    record = begin_record(spec, tmp_path / spec.name).ended(finished=True, validation_loss=3.0)
    record.save()
    with start_run(TrackingConfig(), outputs=outputs, name=spec.name, folder=outputs, params={}, tags={}) as log:
        log.log_artifact(Path(record.folder) / "run.json")
    again = find_run(spec.name, outputs, TrackingConfig())
    assert again.spec == spec and again.validation_loss == 3.0
    with pytest.raises(ConfigError, match=r"300k-run \(run, finished\) has no run\.json"):
        find_run("300k-run", outputs, TrackingConfig())
    with pytest.raises(ConfigError, match="no run 300k-ran in") as error:
        find_run("300k-ran", outputs, TrackingConfig())
    assert error.value.hint == "Did you mean 300k-run?"
