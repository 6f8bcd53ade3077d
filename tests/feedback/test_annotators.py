"""Annotators: gold is never wrong, simulated people are wrong as they are told to be, files say what they say."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.data.conversations import preference_of, read_preferences, write_preferences
from maquette.feedback.annotators.custom import FileAnnotator
from maquette.feedback.annotators.simulated import (
    AnnotatorProfile,
    GoldAnnotator,
    GoldReward,
    SimulatedAnnotator,
    expected_agreement,
    noise_for_agreement,
    utility_differences,
)
from maquette.feedback.comparison import Comparison, Judgement, comparison_of, preferences_of
from maquette.feedback.tasks import Exercises, words_of
from maquette.objectives.completions import Completion
from support.pairs import some_pairs

EXERCISE = Exercises(["pick"])[0]


def pair(first: str, second: str) -> Comparison:
    return Comparison(tuple(EXERCISE.messages), first, second, EXERCISE.facts())


def test_gold_prefers_the_better_answer() -> None:
    right, wrong = EXERCISE.right, "nothing"
    [better, worse, tie] = GoldAnnotator().judge([pair(right, wrong), pair(wrong, right), pair(right, right)])
    assert (better.preference, better.margin) == (1.0, 1.0)
    assert (worse.preference, worse.margin) == (0.0, -1.0)
    assert tie.preference == 0.5
    completion = Completion(tuple(EXERCISE.messages), right, (1,), (2,), True, EXERCISE.facts())
    assert GoldReward()([completion]) == [1.0]


def test_noise_is_that_of_bradley_and_terry() -> None:
    profile = AnnotatorProfile(noise=0.5)
    assert profile.probability([0.5])[0] == pytest.approx(1 / (1 + np.exp(-1)))
    people = [SimulatedAnnotator(profile, seed=seed) for seed in range(3000)]
    one = pair(EXERCISE.right, f"well {EXERCISE.right}")  # gold differs by 0.03
    share = np.mean([person.judge([one])[0].preference for person in people])
    assert share == pytest.approx(1 / (1 + np.exp(-0.03 / 0.5)), abs=0.03)


def test_without_noise_a_person_is_gold() -> None:
    pairs = some_pairs(200)
    judged = SimulatedAnnotator(AnnotatorProfile(noise=0.0)).judge(pairs)
    assert [one.preference for one in judged] == [one.preference for one in GoldAnnotator().judge(pairs)]


def test_a_person_asked_again_says_the_same_and_another_person_may_not() -> None:
    pairs = some_pairs(300)
    person, other = (
        SimulatedAnnotator(AnnotatorProfile(noise=0.3), seed=1),
        SimulatedAnnotator(AnnotatorProfile(noise=0.3), seed=2),
    )
    votes = [one.preference for one in person.judge(pairs)]
    assert votes == [one.preference for one in person.judge(pairs)]
    assert votes == [person.judge([one])[0].preference for one in pairs]  # whatever else is asked beside it
    assert votes != [one.preference for one in other.judge(pairs)]


@pytest.mark.parametrize(
    ("bias", "first", "second"),
    [
        ({"length_bias": 1.0}, f"{EXERCISE.right} so so so so so", EXERCISE.right),
        ({"list_bias": 2.0}, "- nothing\n- here", EXERCISE.right),
    ],
)
def test_biases_can_be_switched_on(bias: dict[str, float], first: str, second: str) -> None:
    assert SimulatedAnnotator(AnnotatorProfile(noise=0.0)).judge([pair(first, second)])[0].preference == 0.0
    assert SimulatedAnnotator(AnnotatorProfile(noise=0.0, **bias)).judge([pair(first, second)])[0].preference == 1.0


def test_a_position_bias_favours_what_is_shown_first() -> None:
    pairs = some_pairs(500)
    both = [*pairs, *(one.swapped() for one in pairs)]
    fair = np.mean([one.preference for one in SimulatedAnnotator(AnnotatorProfile(noise=0.3)).judge(both)])
    swayed = np.mean(
        [one.preference for one in SimulatedAnnotator(AnnotatorProfile(noise=0.3, position_bias=0.5)).judge(both)]
    )
    assert fair == pytest.approx(0.5, abs=0.05)
    assert swayed > 0.7


def test_agreement_and_accuracy_are_different_numbers() -> None:
    pairs = some_pairs(2000)
    profile = noise_for_agreement(AnnotatorProfile(), utility_differences(AnnotatorProfile(), pairs), 0.66)
    differences = utility_differences(profile, pairs)
    assert expected_agreement(profile, differences) == pytest.approx(0.66, abs=1e-3)
    votes = [np.array([one.preference for one in SimulatedAnnotator(profile, seed=s).judge(pairs)]) for s in (1, 2)]
    assert np.mean(votes[0] == votes[1]) == pytest.approx(0.66, abs=0.03)
    decided = differences != 0
    accuracy = np.mean(votes[0][decided] == (differences[decided] > 0))
    assert accuracy > 0.75  # two people who are right so often agree on fewer: some pairs are ties of gold


def test_an_agreement_that_can_not_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="can't be reached"):
        noise_for_agreement(AnnotatorProfile(), [0.0, 0.0, 1.0], 0.9)
    with pytest.raises(ConfigError, match=r"agreement=0\.4"):
        noise_for_agreement(AnnotatorProfile(), [1.0], 0.4)


def test_preferences_go_to_a_file_and_back(tmp_path: Path) -> None:
    pairs = some_pairs(50)
    judged = SimulatedAnnotator(AnnotatorProfile(noise=0.2)).judge(pairs)
    written = list(preferences_of(pairs, judged, "simulated-0"))
    assert write_preferences(tmp_path / "labels.jsonl", written) == len(written) > 30
    assert read_preferences(tmp_path / "labels.jsonl") == [
        dataclasses.replace(one, facts=json.loads(json.dumps(one.facts))) for one in written
    ]
    row = json.loads((tmp_path / "labels.jsonl").read_text().splitlines()[0])
    assert {"prompt", "chosen", "rejected", "annotator"} <= row.keys()
    assert row["chosen"] == written[0].chosen == [{"role": "assistant", "content": comparison_of(written[0]).first}]


def test_ties_and_pairs_nobody_could_judge_make_no_label() -> None:
    pairs = [pair("a", "b"), pair("a", "b"), pair("same", "same"), pair("a", "b")]
    judged = [Judgement(0.5), Judgement(None), Judgement(1.0), Judgement(0.0, -0.3)]
    [only] = preferences_of(pairs, judged, "x")
    assert comparison_of(only) == pair("b", "a") and only.margin == 0.3


def test_a_file_is_an_annotator(tmp_path: Path) -> None:
    votes = [("yes", "no", "ann"), ("yes", "no", "bob"), ("no", "yes", "eve")]
    rows = [
        {"prompt": EXERCISE.messages, "chosen": chosen, "rejected": rejected, "annotator": name}
        for chosen, rejected, name in votes
    ]
    write_preferences(tmp_path / "people.jsonl", [preference_of(row, "here") for row in rows])
    annotator = FileAnnotator(tmp_path / "people.jsonl")
    judged = annotator.judge([pair("yes", "no"), pair("no", "yes"), pair("yes", "maybe")])
    assert [one.preference for one in judged] == [pytest.approx(2 / 3), pytest.approx(1 / 3), None]


@pytest.mark.parametrize(
    "line",
    ["{", '{"prompt": [], "chosen": "a", "rejected": "b"}', '{"prompt": [{"role": "user", "content": "a"}]}',
     '{"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "user", "content": "b"}], "rejected": "c"}'],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    good = {"prompt": EXERCISE.messages, "chosen": "a", "rejected": "b"}
    (tmp_path / "labels.jsonl").write_text(json.dumps(good) + "\n\n" + line + "\n")
    with pytest.raises(StageError, match="line 3"):
        read_preferences(tmp_path / "labels.jsonl")
    with pytest.raises(StageError, match="does not exist"):
        read_preferences(tmp_path / "none.jsonl")


def test_a_pair_of_conversations_is_not_cut_to_be_judged(tmp_path: Path) -> None:
    longer = [{"role": "assistant", "content": "a"}, EXERCISE.messages[0], {"role": "assistant", "content": "b"}]
    (tmp_path / "turns.jsonl").write_text(json.dumps({"prompt": EXERCISE.messages, "chosen": longer, "rejected": "c"}))
    with pytest.raises(StageError, match=r"turns.jsonl, line 1: a completion of 3 messages"):
        FileAnnotator(tmp_path / "turns.jsonl")


def test_longer_answers_have_more_words() -> None:
    assert len(words_of("well, so: red")) == 3
