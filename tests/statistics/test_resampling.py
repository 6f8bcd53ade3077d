"""The bootstrap by counts: exact where it can be computed, in line with SciPy elsewhere."""

import numpy as np
import pytest
from scipy import stats

from maquette.artifacts import ConfigError
from maquette.statistics import (
    bootstrap,
    bootstrap_mean,
    detectable_difference,
    holm,
    paired_bootstrap,
    resample_counts,
)


def test_counts_draw_as_many_cases_as_there_are() -> None:
    counts = resample_counts(12, 50, np.random.default_rng(0))
    assert counts.shape == (50, 12)
    assert np.all(counts.sum(axis=1) == 12)


def test_the_standard_error_of_a_mean_is_the_known_one() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=60)
    estimate = bootstrap_mean(values, resamples=20_000)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.standard_error == pytest.approx(values.std() / np.sqrt(60), rel=0.03)


def test_percentiles_agree_with_scipy_on_a_skewed_statistic() -> None:
    values = np.random.default_rng(3).exponential(size=30)

    def variance(counts: np.ndarray) -> np.ndarray:
        total = counts.sum(axis=1)
        mean = counts @ values / total
        return counts @ values**2 / total - mean**2

    ours = bootstrap(variance, 30, resamples=20_000)
    options = {"n_resamples": 20_000, "confidence_level": 0.9, "method": "percentile"}
    theirs = stats.bootstrap((values,), np.var, rng=0, **options).confidence_interval
    assert ours.interval == pytest.approx(tuple(theirs), rel=0.04)


def test_pairing_removes_what_the_pairs_share() -> None:
    generator = np.random.default_rng(4)
    shared = 10 * generator.standard_normal(80)
    first = shared + 0.5 + 0.3 * generator.standard_normal(80)
    paired = paired_bootstrap(first, shared)
    assert paired.interval.contains(0.5)
    assert paired.interval.width < 0.2
    assert paired.p_value < 0.01


def test_no_difference_has_no_small_p_value() -> None:
    values = np.random.default_rng(5).standard_normal(50)
    assert paired_bootstrap(values, values).p_value == 1.0


def test_the_same_seed_gives_the_same_numbers() -> None:
    values = np.arange(10.0)
    assert np.array_equal(bootstrap_mean(values, seed=3).samples, bootstrap_mean(values, seed=3).samples)
    assert not np.array_equal(bootstrap_mean(values, seed=3).samples, bootstrap_mean(values, seed=4).samples)


def test_too_little_to_draw_from_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 resamples"):
        bootstrap_mean([1.0, 2.0, 3.0, 4.0], resamples=5)
    with pytest.raises(ConfigError, match="two cases"):
        bootstrap_mean([1.0])


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 and 2"):
        paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0])


def test_many_comparisons_are_adjusted_as_holm_did() -> None:
    # Holm 1979: 0.01 x 4, then 0.013 x 3 (not below it), 0.02 x 2 likewise, 0.9 x 1
    assert holm([0.02, 0.01, 0.9, 0.013]) == pytest.approx([0.04, 0.04, 0.9, 0.04])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0]) and len(holm([])) == 0
    draws = np.random.default_rng(0).random((2000, 5))
    assert np.mean([(holm(row) < 0.05).any() for row in draws]) == pytest.approx(0.05, abs=0.015)


def test_a_detectable_difference_is_found_in_four_cases_of_five() -> None:
    error = 0.03
    measured = detectable_difference(error) + error * np.random.default_rng(0).standard_normal(20_000)
    assert np.mean(np.abs(measured / error) > 1.95996) == pytest.approx(0.8, abs=0.01)
