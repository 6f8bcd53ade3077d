"""What runs scored on questions reaches their table, by the way they were asked; and from there the laws."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from maquette.artifacts import StageError
from maquette.artifacts.reading import write_sealed
from maquette.scaling.fits.table import RunTable, read_table
from maquette.scaling.fits.tasks import fit_tasks, read_scores, task_digest, with_tasks


def evaluate(outputs: Path, run: str, created: str, accuracy: float, questions: str = "q1", **changes: Any) -> Path:
    row = {"accuracy": accuracy, "questions": 40, "chance": 0.25}
    result = {
        "name": run, "created": created, "headline": {"a/b": row}, "protocol": {"shots": [0]},
        "answers": {"a/b": {"bits_per_byte": 2.0 - accuracy}}, "digests": {"tasks": {"a/b": questions}},
    }  # fmt: skip
    path = outputs / "evaluations" / f"{run}-embedded-{created}{questions}" / "evaluation.json"
    write_sealed(path, {key: value for key, value in (result | changes).items() if value is not None})
    return path


def table(count: int) -> RunTable:
    size = np.geomspace(1e4, 1e6, count)
    loss, names = 5 * (size / 1e4) ** -0.1, tuple(f"run{i}" for i in range(count))
    return RunTable(
        "runs", names, size, 20 * size, loss, 120 * size**2, 120 * size**2, pd.DataFrame({"name": names})
    )  # fmt: skip


def test_the_newest_score_of_the_way_most_runs_were_asked_counts(tmp_path: Path) -> None:
    for number in range(6):
        evaluate(tmp_path, f"run{number}", "2026-01-01", 0.3 + 0.05 * number)
    evaluate(tmp_path, "run0", "2026-01-02", 0.35)
    evaluate(tmp_path, "run1", "2026-01-03", 0.9, questions="q2")  # other questions
    evaluate(tmp_path, "run", "2026-01-03", 0.9)  # not of this family
    asked = with_tasks(table(7), tmp_path)
    accuracy = asked.frame["tasks/a/b/accuracy"]
    assert accuracy[:6].tolist() == pytest.approx([0.35, 0.35, 0.4, 0.45, 0.5, 0.55]) and np.isnan(accuracy[6])
    laws, missing = fit_tasks(asked)
    assert not missing and laws["a/b"].questions == 40 and len(laws["a/b"].bits) == 6
    assert len(task_digest(asked, "a/b")) == 64
    (tmp_path / "runs.csv").write_text(asked.csv())
    again = read_table(tmp_path / "runs.csv")
    assert task_digest(again, "a/b") == task_digest(asked, "a/b")
    assert fit_tasks(again)[0]["a/b"].bits == pytest.approx(laws["a/b"].bits)


def test_too_few_runs_say_so_and_none_leaves_the_table_alone(tmp_path: Path) -> None:
    runs = table(7)
    assert with_tasks(runs, tmp_path) is runs and fit_tasks(runs) == ({}, {})
    for number in range(3):
        evaluate(tmp_path, f"run{number}", "2026-01-01", 0.3)
    laws, missing = fit_tasks(with_tasks(runs, tmp_path))
    assert not laws and "3 evaluated runs" in missing["a/b"]


def test_older_and_damaged_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(tmp_path, "run0", "2026-01-01", 0.3, answers=None)
    assert read_scores(tmp_path, {"run0"}) == {} and "force=true" in capsys.readouterr().err
    path = evaluate(tmp_path, "run1", "2026-01-01", 0.3)
    path.write_text(path.read_text().replace("0.3", "0.9"))
    with pytest.raises(StageError, match=r"evaluation\.json"):
        read_scores(tmp_path, {"run1"})


def test_kinds_of_token_are_read_from_columns_that_every_run_has() -> None:
    runs = table(3)
    columns = {"token_kinds/new_loss": [3.0, 2.5, 2.0], "token_kinds/new_share": [0.8, 0.8, 0.8]}
    whole = dataclasses.replace(runs, frame=runs.frame.assign(**columns))
    losses, share = whole.token_kinds["new"]
    assert losses.tolist() == [3.0, 2.5, 2.0] and share == pytest.approx(0.8)
    assert whole.take(np.array([2])).token_kinds["new"][0].tolist() == [2.0]
    columns["token_kinds/new_loss"][1] = np.nan
    assert dataclasses.replace(runs, frame=runs.frame.assign(**columns)).token_kinds == {}
