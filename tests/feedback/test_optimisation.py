"""Best-of-n and over-optimisation: against exhaustive counting, published formulas, and data of known shape."""

import itertools
import math

import numpy as np
import pytest

from maquette.artifacts import ConfigError
from maquette.feedback.overoptimisation import (
    best_of_n_kl,
    best_of_n_means,
    fit_overoptimisation,
    powers_of_two,
    selection_weights,
)


def test_the_divergence_of_best_of_n() -> None:
    assert best_of_n_kl(1) == 0.0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    # n-th power of a uniform: KL of its density n u^(n-1) from 1, by quadrature
    u = (np.arange(200_000) + 0.5) / 200_000
    density = 8 * u**7
    assert best_of_n_kl(8) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_expected_worth_is_that_of_all_choices(n: int) -> None:
    numbers = np.random.default_rng(n)
    scores, worths = numbers.normal(size=(3, 5)), numbers.normal(size=(3, 5))
    expected = [
        np.mean([worth[max(chosen, key=lambda i: score[i])] for chosen in itertools.combinations(range(5), n)])
        for score, worth in zip(scores, worths, strict=True)
    ]
    assert best_of_n_means(scores, worths, n) == pytest.approx(expected)


def test_equal_scores_are_chosen_evenly() -> None:
    assert best_of_n_means([1.0, 1.0, 1.0], [0.0, 3.0, 6.0], 2)[0] == pytest.approx(3.0)


def test_selection_weights_are_chances() -> None:
    for n in (1, 2, 7, 64):
        weights = selection_weights(64, n)
        assert weights.sum() == pytest.approx(1.0) and (np.diff(weights) >= -1e-15).all()
    with pytest.raises(ConfigError, match="n=5"):
        selection_weights(4, 5)
    assert list(powers_of_two(20)) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("kind", ["rl", "best_of_n"])
def test_curves_of_known_shape_are_found(kind: str) -> None:
    d = np.linspace(0.2, 4.0, 15)
    truth = d * (0.5 - 0.15 * (np.log(d) if kind == "rl" else d))
    noise = np.random.default_rng(0).normal(scale=0.01, size=len(d))
    exact = fit_overoptimisation(d, truth, kind, bootstrap=0)
    assert (exact.alpha, exact.beta) == (pytest.approx(0.5), pytest.approx(0.15))
    peak = math.exp(0.5 / 0.15 - 1) if kind == "rl" else 0.5 / 0.3
    assert exact.peak == pytest.approx(peak) and exact.alpha_interval is None
    assert exact.gain([0.0])[0] == 0.0
    fitted = fit_overoptimisation(d, truth + noise, kind, level=0.99)
    assert fitted.alpha_interval is not None and fitted.beta_interval is not None
    assert (fitted.alpha, fitted.beta) == (pytest.approx(0.5, abs=0.01), pytest.approx(0.15, abs=0.01))
    assert fitted.alpha_interval.contains(fitted.alpha) and fitted.beta_interval.contains(fitted.beta)
    low, high = fitted.band(d, level=0.99)
    assert ((low <= fitted.gain(d)) & (fitted.gain(d) <= high)).all() and (high - low).max() < 0.1


def test_intervals_cover_as_often_as_they_say() -> None:
    d, covered = np.linspace(0.3, 3.0, 12), 0
    truth = d * (0.4 - 0.1 * d)
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(scale=0.02, size=len(d))
        interval = fit_overoptimisation(d, truth + noise, "best_of_n", bootstrap=200, seed=seed).beta_interval
        assert interval is not None
        covered += interval.contains(0.1)
    assert 0.8 < covered / 200 < 0.97  # 90% by name


def test_a_curve_that_only_rises_has_no_peak() -> None:
    d = np.linspace(0.5, 3, 6)
    fitted = fit_overoptimisation(d, 0.3 * d + 0.05 * d**2, "best_of_n")
    assert fitted.peak is None and fitted.peak_interval is None


def test_fits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="three distances"):
        fit_overoptimisation([0, 1, 1], [0, 1, 1], "rl")
    with pytest.raises(ConfigError, match="kind=sft"):
        fit_overoptimisation([1, 2, 3], [1, 2, 3], "sft")
    with pytest.raises(ConfigError, match="at least 0"):
        fit_overoptimisation([-1, 2, 3], [1, 2, 3], "rl")
