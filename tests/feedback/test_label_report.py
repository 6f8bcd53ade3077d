"""Numbers about labels: by hand, and on annotators whose faults are known; the report that shows them."""

import json
from pathlib import Path

import numpy as np
import pytest

from maquette.artifacts import ConfigError
from maquette.feedback.agreement import accuracy_to_gold, estimate_biases, inter_annotator_agreement, label_curve
from maquette.feedback.annotators.simulated import AnnotatorProfile, SimulatedAnnotator, utility_differences
from maquette.feedback.report import Labels, describe_annotator, votes_of, write_report
from support.pairs import some_pairs


def test_accuracy_by_hand() -> None:
    votes = [1.0, 0.0, 1.0, 0.5, np.nan, 1.0]
    gold = [0.2, -0.1, -0.3, 1.0, 1.0, 0.0]
    estimate = accuracy_to_gold(votes, gold)
    assert estimate is not None and estimate.value == pytest.approx(2 / 3)  # ties and missing votes say nothing
    assert accuracy_to_gold([1.0], [0.5]) is None


def test_agreement_by_hand() -> None:
    estimate = inter_annotator_agreement([[1, 0, 1, np.nan], [1, 1, 1, 0], [0, 0, 1, 0]])
    assert estimate is not None and estimate.value == pytest.approx((1 / 3 + 1 / 3 + 1 + 1) / 4)
    assert inter_annotator_agreement([[1.0, 0.0]]) is None


def test_a_label_curve_by_hand() -> None:
    votes = np.array([[1, 1, 0.0], [1, 0, 0], [1, 0, 0]])  # all right, 1 of 3, none
    curve = label_curve(votes, [1.0, 1.0, 1.0])
    assert curve.error.tolist() == pytest.approx([(0 + 2 / 3 + 1) / 3, (0 + (1 / 3 + 0.5 * 2 / 3) + 1) / 3, 2 / 3])
    assert curve.bias == pytest.approx(2 / 3)
    assert curve.variance == pytest.approx((0 + 1 / 3 + 0) / 3)
    with pytest.raises(ConfigError, match="No pair has a better completion"):
        label_curve(votes, [0.0, 0.0, 0.0])


def test_more_labels_cure_noise_but_not_bias() -> None:
    pairs = some_pairs(600)
    gold = utility_differences(AnnotatorProfile(), pairs)

    def curve(profile: AnnotatorProfile) -> tuple[float, float, float]:
        votes = np.stack([votes_of(SimulatedAnnotator(profile, seed=seed).judge(pairs)) for seed in range(9)])
        result = label_curve(votes, gold)
        return result.error[0], result.error[-1], result.variance

    noisy, biased = curve(AnnotatorProfile(noise=0.4)), curve(AnnotatorProfile(noise=0.02, length_bias=0.5))
    assert noisy[0] > noisy[1] + 0.05 and noisy[2] > 0.1
    assert biased[0] == pytest.approx(biased[1], abs=0.02) and biased[2] < 0.03
    assert noisy[0] > 0.15 and biased[1] > noisy[1]


def test_biases_are_estimated_apart_from_gold() -> None:
    pairs = some_pairs(3000)
    both = [*pairs, *(one.swapped() for one in pairs)]
    gold = utility_differences(AnnotatorProfile(), both)
    words = utility_differences(AnnotatorProfile(length_bias=1.0), both) - gold
    profile = AnnotatorProfile(noise=0.25, length_bias=0.1, position_bias=0.05)
    result = estimate_biases(votes_of(SimulatedAnnotator(profile).judge(both)), gold, words, np.zeros(len(both)))
    assert result is not None
    assert np.log(result.gold) == pytest.approx(1 / 0.25, abs=0.4)
    assert result.word == pytest.approx(np.exp(0.1 / 0.25), rel=0.1)
    assert result.first == pytest.approx(np.exp(0.05 / 0.25), rel=0.1)
    assert result.list == pytest.approx(1.0)
    assert estimate_biases([1.0], [1.0], [0.0], [0.0]) is None


def test_the_report_says_it_all(tmp_path: Path) -> None:
    pairs = some_pairs(300)
    gold = utility_differences(AnnotatorProfile(), pairs)
    people = [SimulatedAnnotator(AnnotatorProfile(noise=0.3, length_bias=0.1), seed=seed) for seed in range(5)]
    votes = np.stack([votes_of(person.judge(pairs)) for person in people])
    report = describe_annotator(Labels("people", votes, 250.0, {"nonsense replies": 3}), pairs, gold)
    silent = describe_annotator(Labels("silent", np.full((1, 300), np.nan)), pairs, None)
    agreement = inter_annotator_agreement(votes)
    assert agreement is not None
    facts = write_report(tmp_path, [report, silent], pairs, {"people, gold": agreement}, ["nonsense replies"])
    text = (tmp_path / "report.md").read_text()
    for words in ("accuracy to gold", "agreement between two", "odds for a word more", "250.00", "nonsense replies"):
        assert words in text
    assert (tmp_path / "figures" / "bias_variance.png").stat().st_size > 10_000
    first, second = facts["annotators"]
    assert first["prefers_longer"]["value"] > 0.5 and first["odds"]["word"] > 1.1
    assert first["accuracy_to_gold"]["value"] > first["inter_annotator_agreement"]["value"]
    assert second["labels"] == 0 and second["accuracy_to_gold"] is None
    assert json.loads((tmp_path / "report.json").read_text()) == facts
