"""Accuracy of a reward model over pairs by subset: by hand, and from a file to a page."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli import evaluate, leaderboard
from maquette.cli.command_line.model_config import EvaluateStage, LeaderboardStage
from maquette.evaluation.config import ProtocolConfig, SuiteConfig
from maquette.evaluation.journal import Journal
from maquette.evaluation.preference_accuracy import (
    ALL_PAIRS,
    LONGER,
    SHORTER,
    SUBSETS,
    RankedPair,
    read_pairs,
    summarize_pairs,
)
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.model.loading import load_reward_model
from maquette.tracking.config import TrackingConfig
from support.their_rewards import their_folder

PROTOCOL = ProtocolConfig(resamples=200)


def pair(subset: str, chosen: str, rejected: str) -> RankedPair:
    return RankedPair(subset, ((), chosen), ((), rejected))


def test_rows_by_hand() -> None:
    """Ties count half for the model and for the ruler; each subset counts alike in their mean."""
    pairs = {
        "a": pair("easy", "longer", "short"),
        "b": pair("easy", "same", "size"),
        "c": pair("easy", "longer", "short"),
        "d": pair("hard", "a", "long one"),
    }
    result = summarize_pairs(pairs, np.array([1.0, -1.0, 0.0, 2.0]), PROTOCOL)
    rows = {row["subset"]: row for row in result["rows"]}
    assert list(rows) == ["easy", "hard", SUBSETS, ALL_PAIRS, LONGER, SHORTER]
    assert (rows["easy"]["accuracy"], rows["easy"]["ties"], rows["easy"]["pairs"]) == (0.5, 1, 3)
    assert rows["easy"]["ruler"] == pytest.approx(2.5 / 3) and rows["hard"]["ruler"] == 0.0
    assert rows["easy"]["low"] <= 0.5 <= rows["easy"]["high"] and math.isnan(rows["hard"]["low"])
    assert rows[SUBSETS]["accuracy"] == result["mean_accuracy"] == 0.75
    assert rows[SUBSETS]["beyond"] == pytest.approx(0.75 - 1.25 / 3)
    assert (rows[ALL_PAIRS]["accuracy"], rows[ALL_PAIRS]["ruler"]) == (2.5 / 4, 2.5 / 4)
    assert (rows[LONGER]["accuracy"], rows[SHORTER]["accuracy"]) == (0.75, 1.0)
    assert result["items"] == {"easy": {"a": 1.0, "b": 0.0, "c": 0.5}, "hard": {"d": 1.0}}
    left = summarize_pairs(pairs, np.array([1.0, np.nan, np.nan, 2.0]), PROTOCOL)
    assert (left["too_long"], left["mean_accuracy"]) == (2, 1.0)


def test_an_interval_covers_what_it_says_and_length_alone_is_found_out() -> None:
    """A model that only measures lengths is no better than the ruler; one that knows better is."""
    numbers = np.random.default_rng(0)
    lengths = numbers.integers(1, 9, (400, 2))
    pairs = {str(n): pair("s", "a" * one, "b" * two) for n, (one, two) in enumerate(lengths.tolist())}
    by_length = (lengths[:, 0] - lengths[:, 1]).astype(float)
    for margins, beats in ((by_length, False), (numbers.normal(0.5, 1, 400), True)):
        row = summarize_pairs(pairs, margins, PROTOCOL)["rows"][0]
        assert (row["beyond_low"] > 0 and row["p_value"] < 0.05) == beats
    assert row["low"] < 0.69 < row["high"]  # P(N(0.5, 1) > 0)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROWS: list[dict[str, Any]] = [
    {"prompt": "Say cat", "chosen": "cat", "rejected": "dog and owl", "subset": "chat", "id": 1},
    {"prompt": "Say dog", "chosen": "dog", "rejected": "owl", "subset": "chat"},
    {"prompt": "Say owl", "chosen": "owl!", "rejected": "no", "category": "safety"},
    {"prompt": "Say fox", "chosen": "fox", "rejected": "hen"},
    {"prompt": "Say hen", "chosen": "same", "rejected": "same"},
    {
        "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x" * 400}],
        "subset": "long",
    },
]


def test_rows_name_their_subset(tmp_path: Path) -> None:
    pairs = read_pairs("bench", str(write(tmp_path / "rows.jsonl", ROWS)))
    assert [one.subset for one in pairs.values()] == ["chat", "chat", "safety", "bench", "long"]
    assert list(pairs)[-1] == "bench|6"  # the pair of equal completions is left out
    with pytest.raises(StageError, match=r"line 1: subset must be a short text, got 3"):
        read_pairs("bench", str(write(tmp_path / "wrong.jsonl", [ROWS[0] | {"subset": 3}])))
    with pytest.raises(StageError, match="no pair of different completions"):
        read_pairs("bench", str(write(tmp_path / "same.jsonl", [ROWS[4]])))


def test_evaluate_a_reward_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file to a page and the leaderboard; again is nothing to do, and a journal is resumed from."""
    their_folder("Llama", tmp_path / "judge")
    rows = write(tmp_path / "rows.jsonl", ROWS)
    stage = EvaluateStage(
        outputs=str(tmp_path), checkpoint=str(tmp_path / "judge"), protocol=PROTOCOL,
        suite=SuiteConfig("preferences", embedded=[], likelihood=False, preferences={"bench": str(rows)}),
        tracking=TrackingConfig(enabled=False),
    )  # fmt: skip
    result = evaluate.run(stage)
    reward = LearnedReward(*load_reward_model(tmp_path / "judge"))
    chosen, rejected = (reward.of_answers([([{"role": "user", "content": "Say cat"}], text)])[0]
                        for text in ("cat", "dog and owl"))  # fmt: skip
    assert result["items"]["chat"]["bench|1"] == float(chosen > rejected)
    assert result["too_long"] == 1 and "1 pairs left out" in capsys.readouterr().err
    [folder] = [path.parent for path in (tmp_path / "evaluations").glob("*/evaluation.json")]
    assert "longer wins" in (folder / "index.html").read_text() and (folder / "figures" / "subsets.svg").exists()
    assert evaluate.run(stage)["items"] == result["items"] and "up to date" in capsys.readouterr().err
    (folder / "evaluation.json").unlink()
    journal = Journal(folder / "journal.jsonl")
    (folder / "journal.jsonl").write_text("".join((folder / "journal.jsonl").read_text().splitlines(True)[:2]))
    assert evaluate.run(stage)["items"] == result["items"]
    assert Journal(folder / "journal.jsonl").results.keys() == journal.results.keys()
    leaderboard.run(LeaderboardStage(outputs=str(tmp_path), tracking=TrackingConfig(enabled=False)))
    assert "judge" in capsys.readouterr().out


def test_questions_are_not_for_reward_models(tmp_path: Path) -> None:
    their_folder("Llama", tmp_path / "judge")
    with pytest.raises(ConfigError, match=r"judge is a reward model(.|\n)*suite=preferences"):
        evaluate.run(EvaluateStage(outputs=str(tmp_path), checkpoint=str(tmp_path / "judge")))
