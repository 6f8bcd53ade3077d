"""Win rates by an annotator: both orders, ties, failures, nothing judged twice, twins told apart by length."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from maquette.artifacts import ConfigError, StageError
from maquette.evaluation import bradley_terry_ratings
from maquette.evaluation.journal import Journal
from maquette.evaluation.pairwise import battles, compare_completions
from maquette.feedback.comparison import Comparison, Judgement

PROMPTS = [[{"role": "user", "content": f"prompt {i}"}] for i in range(200)]


class Judge:
    """Prefers the answer with more of the letter g, with a liking for what stands first and for length."""

    name = "judge"

    def __init__(self, first: float = 0.0, length: float = 0.0, fails: Sequence[str] = (), soft: bool = False) -> None:
        self.first, self.length, self.fails, self.soft = first, length, fails, soft
        self.asked: list[str] = []

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        preferences = []
        for row in comparisons:
            self.asked.append(row.key)
            if any(word in row.messages[0]["content"].split() for word in self.fails):
                preferences.append(Judgement(None))
                continue
            score = row.first.count("g") - row.second.count("g") + self.first
            score += self.length * np.tanh((len(row.first) - len(row.second)) / 30)
            preferences.append(Judgement(float(expit(score)) if self.soft else float(score > 0)))
        return preferences


def test_both_orders_by_hand() -> None:
    """Good against bad wins, equals tie; a bias of position makes near answers contradict each other."""
    answers, baseline = ["gg", "gggg", "a", "b"], ["g", "g", "g", "b"]
    result = compare_completions(Judge(first=1.5), PROMPTS[:4], answers, baseline)
    assert result.preferences.tolist() == [0.5, 1.0, 0.5, 0.5]  # three more g are enough, one is not
    assert (result.wins, result.ties, result.losses, result.failed) == (1, 3, 0, 0)
    assert result.first_shown == pytest.approx(5 / 6)
    assert result.consistent == pytest.approx(1 / 3)
    fair = compare_completions(Judge(), PROMPTS[:4], answers, baseline)
    assert (fair.wins, fair.ties, fair.losses) == (2, 1, 1)
    assert fair.win_rate == pytest.approx(62.5) and fair.interval.low < 62.5 < fair.interval.high
    assert (fair.first_shown, fair.consistent) == (0.5, 1.0)


def test_a_failing_judge_is_counted_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    answers, baseline = ["gg"] * 200, ["g"] * 200
    judge = Judge(fails=["3", "77"])
    first = compare_completions(judge, PROMPTS, answers, baseline, journal=Journal(tmp_path / "journal.jsonl"))
    assert first.failed == 2 and first.wins == 198 and len(judge.asked) == 400
    mended = Judge()
    again = compare_completions(mended, PROMPTS, answers, baseline, journal=Journal(tmp_path / "journal.jsonl"))
    assert again.failed == 0 and len(mended.asked) == 4
    with pytest.raises(StageError, match="no usable judgement"):
        compare_completions(Judge(fails=["3"]), PROMPTS[3:4], ["gg"], ["g"])
    with pytest.raises(ConfigError, match="2 prompts, 1 completions"):
        compare_completions(judge, PROMPTS[:2], ["g"], ["g", "g"])


def test_a_judge_that_dies_loses_no_batch(tmp_path: Path) -> None:
    class Dying(Judge):
        def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
            if len(self.asked) >= 128:
                raise StageError("the endpoint is gone")
            return super().judge(comparisons)

    with pytest.raises(StageError, match="endpoint"):
        compare_completions(Dying(), PROMPTS, ["gg"] * 200, ["g"] * 200, journal=Journal(tmp_path / "j.jsonl"))
    rest = Judge()
    compare_completions(rest, PROMPTS, ["gg"] * 200, ["g"] * 200, journal=Journal(tmp_path / "j.jsonl"))
    assert len(rest.asked) == 400 - 128


def test_twins_meet_when_length_is_controlled() -> None:
    generator = np.random.default_rng(0)
    baseline = ["x" * int(n) for n in generator.integers(40, 80, 200)]
    rates = {}
    for name, factor in (("verbose", 1.4), ("concise", 0.6)):
        answers = ["x" * max(1, int(len(b) * factor * generator.lognormal(0, 0.4))) for b in baseline]
        rates[name] = compare_completions(Judge(length=1.2, soft=True), PROMPTS, answers, baseline).rate
    verbose, concise = rates["verbose"], rates["concise"]
    assert verbose is not None and concise is not None
    assert verbose.raw > 58 and concise.raw < 42
    assert abs(verbose.controlled - 50) < 3 and abs(concise.controlled - 50) < 3


def test_battles_make_ratings() -> None:
    results = {
        ("good", "bad"): compare_completions(Judge(), PROMPTS[:4], ["gg", "gg", "g", "g"], ["g"] * 4),
        ("good", "worst"): compare_completions(Judge(), PROMPTS[:4], ["g", "g", "g", ""], ["", "", "g", "g"]),
        ("worst", "bad"): compare_completions(Judge(), PROMPTS[:2], ["", "g"], ["g", ""]),
    }
    columns = battles(results)
    assert len(columns["winners"]) == 10 and sum(columns["ties"]) == 3
    ratings = bradley_terry_ratings(columns["winners"], columns["losers"], ties=columns["ties"])
    assert next(iter(ratings.strengths)) == "good"
