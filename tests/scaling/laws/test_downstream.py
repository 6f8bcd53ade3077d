"""Laws of tasks: known ones are recovered and their intervals hold; what questions can't show is noise."""

import numpy as np
import pytest

from maquette.scaling import LawError, LossSurface, fit_predictor
from maquette.scaling.laws.downstream import TaskForecast, TaskLaw, fit_task, smallest_effect
from support.sweeps import Sweep, half_decades, isoflop_sweep

LOSS = LossSurface(E=1.2, A=110, B=240, alpha=0.36, beta=0.36, gamma=0.8)
BITS = LossSurface(E=0.3, A=90, B=200, alpha=0.36, beta=0.36, gamma=0.8)
TARGET = LOSS.optimal(1e15)
QUESTIONS = 300


def accuracy(bits: np.ndarray) -> np.ndarray:
    return np.asarray(0.25 + 0.75 * np.exp(-np.exp(-0.3) * bits**1.3))


def family(seed: int) -> tuple[Sweep, np.ndarray, np.random.Generator]:
    numbers = np.random.default_rng(seed)
    sweep = isoflop_sweep(LOSS, half_decades(1e12, 5), sizes=4, width=2, noise=0.002, seed=seed)
    bits = BITS.loss(sweep.params, sweep.tokens) * np.exp(0.01 * numbers.standard_normal(len(sweep.params)))
    return sweep, bits, numbers


def law(sweep: Sweep, bits: np.ndarray, right: np.ndarray) -> TaskLaw:
    return fit_task(
        sweep.params, sweep.tokens, 6 * sweep.params * sweep.tokens, sweep.loss, bits, right, chance=0.25,
        questions=QUESTIONS, budgets=sweep.budgets,
    )  # fmt: skip


def forecast(fitted: TaskLaw, sweep: Sweep) -> TaskForecast:
    at = float(TARGET.params), float(TARGET.tokens), 1e15
    loss = fit_predictor(sweep.params, sweep.tokens, sweep.loss, budgets=sweep.budgets).predict(*at)
    return fitted.predict(*at, loss)


def test_a_known_task_is_predicted_with_intervals_that_hold() -> None:
    truth = float(BITS.loss(*TARGET))
    held = []
    for seed in range(4):
        sweep, bits, numbers = family(seed)
        expected = forecast(law(sweep, bits, numbers.binomial(QUESTIONS, accuracy(bits)) / QUESTIONS), sweep)
        assert expected.bits_per_byte.value == pytest.approx(truth, rel=0.04)
        assert expected.accuracy.value == pytest.approx(float(accuracy(np.array(truth))), abs=0.06)
        assert expected.two_step_bits.value == pytest.approx(truth, rel=0.08)
        assert expected.two_step_accuracy.value == pytest.approx(expected.accuracy.value, abs=0.1)
        assert not expected.accuracy_is_noise and not expected.bits_are_noise
        low, high = expected.accuracy.intervals[0.9]
        assert low < expected.accuracy.intervals[0.5][0] < expected.accuracy.intervals[0.5][1] < high
        observed = truth * np.exp(0.01 * numbers.standard_normal())
        held.append(expected.bits_per_byte.contains(observed))
        held.append(expected.accuracy.contains(numbers.binomial(QUESTIONS, accuracy(observed)) / QUESTIONS))
    assert sum(held) >= 7


def test_a_task_that_every_run_guesses_is_noise() -> None:
    sweep, _, numbers = family(0)
    bits = 2.5 * np.exp(0.02 * numbers.standard_normal(len(sweep.params)))
    expected = forecast(law(sweep, bits, numbers.binomial(QUESTIONS, 0.25, len(bits)) / QUESTIONS), sweep)
    assert expected.accuracy_is_noise and expected.bits_are_noise
    assert expected.accuracy.value == pytest.approx(0.25, abs=0.05)
    assert expected.accuracy.intervals[0.9][1] - expected.accuracy.intervals[0.9][0] > 2 * np.sqrt(
        0.25 * 0.75 / QUESTIONS
    )


def test_the_smallest_effect_is_that_of_a_test_with_its_power() -> None:
    effect = smallest_effect(400, 0.5)
    numbers = np.random.default_rng(0)
    seen = numbers.binomial(400, 0.5 + effect, 20_000) / 400
    assert np.mean(seen - 0.5 > 1.645 * np.sqrt(0.25 / 400)) == pytest.approx(0.8, abs=0.02)
    assert smallest_effect(400, 0.5, models=2) == pytest.approx(effect * np.sqrt(2))


def test_bad_columns_and_too_few_runs_are_refused() -> None:
    sweep, bits, _ = family(0)
    right = np.full(len(bits), 0.4)
    with pytest.raises(LawError, match="between 0 and 1"):
        law(sweep, bits, right + 1)
    with pytest.raises(LawError, match="bits_per_byte"):
        law(sweep, -bits, right)
    with pytest.raises(LawError, match="4 evaluated runs"):
        law(Sweep(*(column[:4] for column in sweep)), bits[:4], right[:4])
