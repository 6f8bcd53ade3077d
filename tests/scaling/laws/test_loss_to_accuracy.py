"""Compute to loss to accuracy: a known law is recovered, intervals hold, and a held-out run is judged."""

import numpy as np
import pytest

from maquette.scaling.laws.loss_to_accuracy import AccuracyLaw, check_held_out, fit_loss_to_accuracy
from maquette.scaling.laws.runs import LawError

LAW = AccuracyLaw(chance=0.25, top=0.95, middle=2.0, width=0.25)


def sweep(seed: int, noise: float = 0.01, runs: int = 12, largest: float = 15) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    compute = np.logspace(10, largest, runs)
    loss = 8.0 * (compute / 1e10) ** -0.14 * np.exp(generator.normal(0, 0.004, runs))
    accuracy = np.clip(LAW.accuracy(loss) + generator.normal(0, noise, runs), 0, 1)
    return compute, loss, accuracy


def test_by_hand() -> None:
    assert LAW.accuracy(2.0) == pytest.approx(0.25 + 0.75 * 0.95 / 2)
    assert LAW.accuracy(100.0) == pytest.approx(0.25)


def test_recovers_a_known_law() -> None:
    compute, loss, accuracy = sweep(0, noise=0.001)
    fit = fit_loss_to_accuracy(compute, loss, accuracy, chance=0.25, bootstrap=40)
    assert fit.law.middle == pytest.approx(2.0, abs=0.05)
    assert fit.law.width == pytest.approx(0.25, rel=0.1)
    assert fit.loss.exponent == pytest.approx(-0.14, abs=0.003)
    prediction = fit.predict(1e16)
    truth = 8.0 * 1e6**-0.14
    assert prediction.loss == pytest.approx(truth, rel=0.02)
    assert prediction.accuracy == pytest.approx(float(LAW.accuracy(truth)), abs=0.02)
    assert fit.predict(1e16, questions=50).interval.width > prediction.interval.width


def test_held_out_runs_hold_about_as_often_as_they_should() -> None:
    verdicts = [check_held_out(*sweep(seed), chance=0.25, bootstrap=40)[0] for seed in range(8)]
    assert sum(verdict.held for verdict in verdicts) >= 6
    assert all(verdict.prediction.interval.width < 0.3 for verdict in verdicts)
    compute, loss, accuracy = sweep(1)
    accuracy[-1] = 0.3  # the largest run fails at the task
    assert not check_held_out(compute, loss, accuracy, chance=0.25, bootstrap=40)[0].held


def test_runs_that_guess_are_said_and_mistakes_refused() -> None:
    compute, loss, _ = sweep(2)
    guessing = 0.25 + np.random.default_rng(0).normal(0, 0.02, len(loss))
    assert any(
        "guessing" in note for note in fit_loss_to_accuracy(compute, loss, guessing, chance=0.25, bootstrap=5).warnings
    )
    with pytest.raises(LawError, match="4 runs are too few"):
        fit_loss_to_accuracy(compute[:4], loss[:4], guessing[:4], chance=0.25)
    with pytest.raises(LawError, match="between 0 and 1"):
        fit_loss_to_accuracy(compute, loss, guessing + 1, chance=0.25)
    with pytest.raises(LawError, match="leaves too few"):
        check_held_out(compute, loss, guessing, chance=0.25, held_out=9)
