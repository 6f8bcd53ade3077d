"""Predictions can't be changed, added to the past or forgotten; verdicts count only runs that came after."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.reports import render
from maquette.scaling.predictions.prediction import (
    FOLDER,
    WrittenPrediction,
    broken_links,
    find_prediction,
    read_prediction,
    read_predictions,
    write_prediction,
)
from maquette.scaling.predictions.verdict import (
    Outcome,
    calibration,
    calibration_figure,
    judge,
    refusal,
)


def prediction(**changes: Any) -> WrittenPrediction:
    values: dict[str, Any] = {
        "created": "", "params": 3e6, "tokens": 6e7, "compute": 1e15, "convention": "exact", "loss": 2.5,
        "interval50": (2.48, 2.52), "interval90": (2.4, 2.6), "form": "kaplan", "reach": 10.0, "slope": -0.06,
        "fit": "isoflop-1", "fit_digest": "f" * 64, "runs": [{"name": "a", "loss": 3.0, "fingerprint": "x"}],
        "spec": {"name": "3m-60m", "digests": {"tokens": "t" * 64}}, "before": None,
    }  # fmt: skip
    return WrittenPrediction(**(values | changes))


def outcome(of: WrittenPrediction, **changes: Any) -> Outcome:
    values: dict[str, Any] = {
        "name": "3m-60m", "params": of.params, "core": 2e6, "tokens": of.tokens, "loss": 2.53,
        "started": "2999-01-01T00:00:00+00:00", "prediction": of.digest, "data": {"tokens": "t" * 64},
    }  # fmt: skip
    return Outcome(**(values | changes))


def test_written_and_found_again(tmp_path: Path) -> None:
    first = write_prediction(prediction(), tmp_path)
    second = write_prediction(prediction(loss=2.4), tmp_path)
    assert second.before == first.digest and first.before is None
    assert read_predictions(tmp_path) == [first, second]
    assert find_prediction(first.id, tmp_path) == find_prediction(first.id[:5], tmp_path) == first
    assert find_prediction(None, tmp_path) == find_prediction("latest", tmp_path) == second
    assert find_prediction(str(tmp_path / FOLDER / f"{first.id}.json"), "elsewhere") == first
    with pytest.raises(ConfigError, match="no such prediction"):
        find_prediction("nonsense", tmp_path)
    with pytest.raises(StageError, match="no prediction"):
        find_prediction(None, tmp_path / "other")


def test_a_changed_prediction_is_refused(tmp_path: Path) -> None:
    written = write_prediction(prediction(), tmp_path)
    path = tmp_path / FOLDER / f"{written.id}.json"
    assert path.stat().st_mode & 0o222 == 0
    raw = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps({**raw, "loss": 2.53}))
    with pytest.raises(StageError, match="changed after it was written"):
        read_prediction(path)
    path.write_text("{")
    with pytest.raises(StageError, match="is damaged"):
        read_prediction(path)


def test_a_forgotten_prediction_is_missed(tmp_path: Path) -> None:
    first = write_prediction(prediction(), tmp_path)
    second = write_prediction(prediction(loss=2.4), tmp_path)
    (tmp_path / FOLDER / f"{first.id}.json").unlink()
    assert broken_links(read_predictions(tmp_path)) == [
        f"The prediction {first.id}, which {second.id} follows, is missing."
    ]
    with pytest.raises(StageError, match="is missing"):
        write_prediction(prediction(), tmp_path)
    assert "Several" in broken_links([first, dataclasses.replace(second, before=None)])[0]
    # the newest one is followed by none: what was recorded beside it tells, and two that follow one
    assert broken_links([first], [first.digest]) == []
    assert broken_links([first], [first.digest, second.digest]) == [
        f"The prediction {second.id}, which MLflow knows, is missing."
    ]
    third = dataclasses.replace(second, loss=2.3, digest="f" * 64)
    assert broken_links([first, second, third]) == [f"Several predictions follow {first.id}: {second.id}, {third.id}."]


def test_runs_that_decide_nothing(tmp_path: Path) -> None:
    one = write_prediction(prediction(), tmp_path)
    assert refusal(one, outcome(one)) == ""
    assert refusal(one, outcome(one, started=one.created[:19] + "+00:00")) == ""  # in the same second
    for changes, message in [
        ({"started": "2001-01-01T00:00:00+00:00"}, "before the prediction was written"),
        ({"prediction": None}, "another prediction"),
        ({"prediction": one.id + "0" * 56}, "another prediction"),
        ({"params": 2.9e6}, "parameters"),
        ({"tokens": 1.0}, "tokens"),
        ({"data": {"tokens": "other"}}, "read other tokens"),
        ({"loss": float("nan")}, "no loss"),
    ]:
        assert message in refusal(one, outcome(one, **changes)), changes
    core = write_prediction(prediction(convention="kaplan", params=2e6), tmp_path)
    assert refusal(core, outcome(core, params=3e6)) == ""


def test_verdict_and_record(tmp_path: Path) -> None:
    one = write_prediction(prediction(), tmp_path)
    verdict = judge(one, outcome(one))
    assert verdict.error == pytest.approx(0.03) and verdict.relative == pytest.approx(2.53 / 2.5 - 1)
    assert verdict.inside == {0.5: False, 0.9: True}
    assert "outside its 50% interval, inside its 90%" in verdict.words
    assert (
        "below" in judge(one, outcome(one, loss=2.3)).words
        and "inside its 50%" in judge(one, outcome(one, loss=2.5)).words
    )
    far = write_prediction(prediction(reach=95.0), tmp_path)
    verdicts = [verdict, judge(one, outcome(one, loss=2.49)), judge(far, outcome(far, loss=2.2))]
    record = calibration(verdicts)
    assert record["all"]["inside90"] == pytest.approx(2 / 3) and record["all"]["inside50"] == pytest.approx(1 / 3)
    assert [(row["reach"], row["verdicts"]) for row in record["by_reach"]] == [(10.0, 2), (100.0, 1)]
    assert record["by_reach"][1]["largest_error_percent"] == pytest.approx(100 * (2.2 / 2.5 - 1))
    shown = {"verdicts": verdicts, "refused": ["b: too late"], "waiting": [far], "written": "now"}
    figures = {"calibration": calibration_figure(verdicts)}
    page = render("calibration.html.j2", {"record": record, "figures": figures, **shown})
    assert one.id in page and "Not counted: b: too late" in page and f"train prediction={far.id}" in page
    empty = {"verdicts": [], "refused": [], "waiting": [one], "written": "now", "figures": {}}
    assert "No verdict yet" in render("calibration.html.j2", {"record": calibration([]), **empty})


KINDS = {
    "new": {"loss": 3.0, "interval50": [2.9, 3.1], "interval90": [2.8, 3.2]},
    "hit": {"loss": 1.0, "interval50": [0.9, 1.1], "interval90": [0.8, 1.2]},
}
EXPECTED = {"value": 0.5, "interval50": [0.48, 0.52], "interval90": [0.4, 0.6]}
TASK = {
    "questions": 40, "chance": 0.25, "digest": "d" * 64, "bits_per_byte": EXPECTED, "accuracy": EXPECTED,
    "two_steps": {"bits_per_byte": EXPECTED, "accuracy": EXPECTED},
    "smallest_effect": {"accuracy": 0.17, "bits_per_byte": 0.02}, "noise": {"accuracy": True, "bits_per_byte": False},
}  # fmt: skip


def test_each_kind_and_task_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    one = write_prediction(prediction(kinds=KINDS, tasks={"quiz": TASK, "later": TASK}), tmp_path)
    assert read_predictions(tmp_path) == [one]
    lines = "\n".join(one.lines({}))
    assert "hit tokens: 1.0000" in lines and "noise at this size, since 40 questions" in lines
    scores = {"bits_per_byte": 0.7, "accuracy": 0.5}
    run = outcome(one, kinds={"new": 3.1, "hit": 0.7}, tasks={"quiz": {"d" * 64: scores, "e" * 64: {}}})
    verdict = judge(one, run)
    assert {part.name: part.inside for part in verdict.parts} == {
        "new tokens": True, "hit tokens": False, "quiz, bits per byte of the right answer": False,
        "quiz, accuracy": True,
    }  # fmt: skip
    assert verdict.not_evaluated == ("later",) and verdict.facts()["parts"][1]["observed"] == 0.7
    # Other questions decide nothing.
    assert judge(one, outcome(one, tasks={"quiz": {"e" * 64: scores}})).not_evaluated == ("quiz", "later")


def test_a_prediction_of_before_kinds_and_tasks_is_still_read(tmp_path: Path) -> None:
    old = write_prediction(prediction(format=3), tmp_path)
    raw = json.loads((tmp_path / FOLDER / f"{old.id}.json").read_text())
    assert "kinds" not in raw and "tasks" not in raw
    assert read_predictions(tmp_path) == [old] and judge(old, outcome(old)).parts == ()
