"""`maquette annotate`: given pairs judged again, by whom one likes; what is missing is said."""

import contextlib
import json
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.manifest import read_manifest
from maquette.cli import annotate
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.model_config import AnnotateStage
from maquette.cli.command_line.registry import STAGES
from maquette.data.conversations import read_preferences, write_preferences
from maquette.feedback import annotation
from maquette.feedback.annotators.simulated import AnnotatorProfile, GoldAnnotator, SimulatedAnnotator
from maquette.feedback.comparison import Comparison, comparison_of, preferences_of
from maquette.feedback.tasks import Exercises, demonstrate


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Sixty labels of a noisy person."""
    exercises = Exercises(["pick"]).take(90)
    answers = [demonstrate(exercises, "easy", seed=seed) for seed in (1, 2)]
    pairs = [
        Comparison(tuple(one.messages), first, second, one.facts())
        for one, first, second in zip(exercises, *answers, strict=True)
    ]
    judged = SimulatedAnnotator(AnnotatorProfile(noise=2.0)).judge(pairs)
    write_preferences(tmp_path / "noisy.jsonl", preferences_of(pairs, judged, "noisy"))
    return tmp_path / "noisy.jsonl"


def settings(outputs: Path, *overrides: str) -> AnnotateStage:
    config = compose(STAGES["annotate"], [f"outputs='{outputs}'", "tracking=none", *overrides])
    assert isinstance(config, AnnotateStage)
    return config


def test_given_pairs_are_judged_anew(tmp_path: Path, given: Path) -> None:
    folder = annotate.run(settings(tmp_path, f"given='{given}'", "feedback=gold"))
    before, after = read_preferences(given), read_preferences(folder / "preferences.jsonl")
    gold = GoldAnnotator()
    assert {one.annotator for one in after} == {"gold"} and 20 < len(after) <= len(before)
    for row in after:
        [judged] = gold.judge([comparison_of(row)])
        assert judged.preference == 1.0 and row.margin is not None and row.margin > 0
    assert annotate.run(settings(tmp_path, f"given='{given}'", "feedback=gold")) == folder  # nothing to do
    assert "gold" in (folder / "report.md").read_text()


def test_an_annotator_without_figures_has_none_in_the_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Log:
        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            assert metrics

        def log_artifact(self, path: Path) -> None:
            assert path.exists()

    monkeypatch.setattr(annotation, "start_run", lambda *_, **__: contextlib.nullcontext(Log()))
    (tmp_path / "taste_of_ours.py").write_text("def first(pairs):\n    return [1.0 for _ in pairs]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = [{"prompt": f"Name {number}.", "chosen": "a", "rejected": "b"} for number in range(3)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    taste = ("feedback=callable", "feedback.callable=taste_of_ours:first")
    folder = annotate.run(settings(tmp_path, f"given='{tmp_path}/own.jsonl'", *taste))
    assert not (folder / "figures").exists()


def test_labels_of_before_come_first(tmp_path: Path, given: Path) -> None:
    folder = annotate.run(
        settings(tmp_path, f"given='{given}'", "feedback=alpacafarm", f"add=['{given}']", "repeats=3")
    )
    rows, before = read_preferences(folder / "preferences.jsonl"), read_preferences(given)
    assert rows[: len(before)] == before and len(rows) > len(before)
    facts = read_manifest(folder).facts
    assert facts["annotators"][0]["inter_annotator_agreement"]["value"] == pytest.approx(0.66, abs=0.12)
    assert (folder / "figures" / "bias_variance.svg").exists()


def test_several_judges_side_by_side(tmp_path: Path, given: Path) -> None:
    """Agreement with gold against price, bias against variance: of people, who give the labels, and two judges."""
    judges = "judges={noisy: {noise: 3, label_price: 0.01}, wordy: {noise: 0.01, length_bias: 1, label_price: 0.2}}"
    config = settings(tmp_path, f"given='{given}'", "feedback.noise=0.05", "repeats=5", judges)
    folder = annotate.run(config)
    facts = read_manifest(folder).facts
    by_name = {one["name"]: one for one in facts["annotators"]}
    assert list(by_name) == ["simulated-0", "noisy", "wordy", "gold"]
    right = {name: one["accuracy_to_gold"]["value"] for name, one in by_name.items()}
    assert right["gold"] == 1.0 > right["simulated-0"] > max(right["noisy"], right["wordy"])
    assert by_name["noisy"]["variance"] > by_name["wordy"]["variance"]  # noise is variance, a taste is bias
    assert by_name["wordy"]["bias"] > by_name["simulated-0"]["bias"]
    assert [by_name[name]["dollars_per_thousand"] for name in ("noisy", "wordy")] == [10.0, 200.0]
    assert len(facts["agreement_between"]) == 6
    assert (folder / "figures" / "price.png").exists() and "figures/price.png" in (folder / "report.md").read_text()
    alone = annotate.run(settings(tmp_path, f"given='{given}'", "feedback.noise=0.05", "repeats=5"))
    assert alone != folder and not (alone / "figures" / "price.png").exists()
    assert read_preferences(alone / "preferences.jsonl") == read_preferences(folder / "preferences.jsonl")
    with pytest.raises(ConfigError, match=r"judges\.gold"):
        settings(tmp_path, "judges={gold: {kind: gold}}")
    with pytest.raises(ConfigError, match="nois"):
        settings(tmp_path, "judges={a: {nois: 1}}")
    with pytest.raises(ConfigError, match=r"feedback\.path"):
        settings(tmp_path, "judges={a: {kind: file}}")


def test_a_file_can_judge(tmp_path: Path, given: Path) -> None:
    folder = annotate.run(settings(tmp_path, f"given='{given}'", "feedback.kind=file", f"feedback.path='{given}'"))
    before, again = read_preferences(given), read_preferences(folder / "preferences.jsonl")
    assert {comparison_of(one).key for one in again} == {comparison_of(one).key for one in before}


def test_what_an_annotator_lacks_is_said(tmp_path: Path, given: Path) -> None:
    with pytest.raises(ConfigError, match=r"feedback\.path"):
        settings(tmp_path, "feedback.kind=file")
    with pytest.raises(ConfigError, match=r"feedback\.url or"):
        settings(tmp_path, "feedback=language_model", "feedback.url=null")
    with pytest.raises(StageError, match="no run"):
        annotate.run(settings(tmp_path))
    given.write_text("")
    with pytest.raises(StageError, match="no pair"):
        annotate.run(settings(tmp_path, f"given='{given}'"))
