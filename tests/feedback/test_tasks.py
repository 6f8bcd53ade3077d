"""The tasks: gold rewards computed by hand, prompts that never meet, demonstrators in their proportions."""

import random
from collections import Counter
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.artifacts import ConfigError, StageError
from maquette.feedback.tasks import MIXTURES, TASKS, Demonstrators, Exercises, demonstrate, from_facts, gold_reward
from maquette.feedback.tasks.exercises import CATEGORIES
from maquette.feedback.tasks.scoring import FILLERS, REFUSAL, f1, is_list, is_refusal, ordered_f1, words_of


def test_gold_rewards_by_hand() -> None:
    right = ("red", "blue")
    assert gold_reward("red blue", right) == 1.0
    assert gold_reward("Blue, red.", right) == 1.0  # order and punctuation do not matter here
    assert gold_reward("red", right) == pytest.approx(2 / 3)
    assert gold_reward("red blue file", right) == pytest.approx(4 / 5)
    assert gold_reward("red red blue", right) == pytest.approx(4 / 5)
    assert gold_reward("well so red blue", right) == pytest.approx(1 - 2 * 0.03)
    assert gold_reward("", right) == 0.0
    assert gold_reward("well", right) == pytest.approx(-0.03)
    assert gold_reward("blue red", right, ordered=True) == pytest.approx(1 / 2)
    assert gold_reward("- red\n- blue", right, ordered=True) == 1.0


def test_refusing_and_refusing_too_much() -> None:
    assert gold_reward("sorry no", REFUSAL, declines=True) == 1.0
    assert gold_reward("well sorry", REFUSAL, declines=True) == pytest.approx(0.97)
    assert gold_reward("red blue", REFUSAL, declines=True) == 0.0
    assert gold_reward("sorry no", ("red",)) == -0.5
    assert is_refusal("No.") and not is_refusal("red no") and not is_refusal("")


@given(st.lists(st.sampled_from("abcd"), max_size=6), st.lists(st.sampled_from("abcd"), max_size=6))
def test_scores_lie_between_nothing_and_perfect(answer: list[str], expected: list[str]) -> None:
    assert 0 <= ordered_f1(answer, expected) <= f1(answer, expected) <= 1
    assert f1(answer, expected) == f1(expected, answer)
    assert (ordered_f1(answer, expected) == 1) == (answer == expected)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_right_answers_are_right_and_others_are_not(name: str) -> None:
    for exercise in Exercises([name]).take(200):
        assert exercise.task == name and exercise.gold(exercise.right) == 1.0
        assert exercise.gold("") <= 0.0 or not exercise.answer
        assert from_facts(exercise.facts()) == exercise
        for word in exercise.items:
            assert word in exercise.instruction.split() or f"{word}." in exercise.instruction


@pytest.mark.parametrize("name", sorted(TASKS))
def test_several_phrasings_of_each_task(name: str) -> None:
    openings = Counter(exercise.instruction.split()[0] for exercise in Exercises([name]).take(300))
    assert len(openings) >= 3


def test_held_out_prompts_are_never_trained_on() -> None:
    trained = {one.instruction for seed in range(3) for one in Exercises(["count", "reverse"], seed=seed).take(700)}
    held_out = {one.instruction for one in Exercises(["reverse", "count"], seed=1, split="held_out").take(700)}
    assert len(trained) > 2000 and len(held_out) > 690
    assert not trained & held_out


def test_exercises_are_a_function_of_their_number() -> None:
    one, other = Exercises(sorted(TASKS), seed=3), Exercises(sorted(TASKS), seed=3)
    assert one[10**9] == other[10**9]
    assert one.take(5, start=7) == [other[number] for number in range(7, 12)]
    assert one[4] != Exercises(sorted(TASKS), seed=4)[4]
    assert {exercise.task for exercise in one.take(60)} == set(TASKS)


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'pick'"):
        Exercises(["pik"])
    with pytest.raises(ConfigError, match="Known tasks"):
        Exercises([])
    with pytest.raises(ConfigError, match="split"):
        Exercises(split="test")


def test_words_have_one_category_each() -> None:
    words = [word for category in CATEGORIES.values() for word in category]
    assert len(words) == len(set(words)) and not set(words) & {*FILLERS, *REFUSAL}
    assert all(words_of(word) == [word] for word in (*words, *FILLERS))


def test_the_refuse_task_marks_what_is_to_be_declined() -> None:
    exercises = Exercises(["refuse"]).take(300)
    assert all(one.declines == ("private" in one.instruction) for one in exercises)
    assert 0.4 < mean(one.declines for one in exercises) < 0.6


def test_harder_demonstrators_are_as_they_are_said_to_be() -> None:
    exercises = [one for one in Exercises(["pick"]).take(3000) if len(one.answer) > 1]
    answers = demonstrate(exercises, "harder")
    contents = [[word for word in words_of(answer) if word not in FILLERS] for answer in answers]
    right = mean(content == list(one.answer) for content, one in zip(contents, exercises, strict=True))
    first = mean(content == list(one.answer[:1]) for content, one in zip(contents, exercises, strict=True))
    leading = mean(words_of(answer)[0] in FILLERS for answer in answers)
    assert right == pytest.approx(0.2, abs=0.04)
    assert first == pytest.approx(0.5, abs=0.09)  # dropping one word of two leaves the first, too
    assert leading == pytest.approx(0.65, abs=0.04)
    assert all(contents)


@pytest.mark.parametrize("mixture", sorted(MIXTURES))
def test_demonstrations_repeat_themselves(mixture: str) -> None:
    exercises = Exercises(sorted(TASKS)).take(200)
    answers = demonstrate(exercises, mixture, seed=1)
    assert answers == demonstrate(exercises, mixture, seed=1)
    golds = [one.gold(answer) for one, answer in zip(exercises, answers, strict=True)]
    assert (min(golds) == 1.0) == (mixture == "perfect")
    if mixture == "listing":
        assert 0.1 < mean(is_list(answer) for answer in answers) < 0.4


def test_shares_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError):
        Demonstrators(first=0.6, drop=0.6)
    with pytest.raises(ConfigError, match="demonstrators=best"):
        demonstrate([], "best")
    assert Demonstrators(drop=1.0).answer(Exercises(["count"])[0], random.Random(0))


def test_a_prompt_without_an_exercise_has_no_gold() -> None:
    with pytest.raises(StageError, match="no gold reward"):
        from_facts({"text": "hello"})
