"""Intervals against hand-computed values, SciPy and their own promises."""

import numpy as np
import pytest
from scipy import stats

from maquette.artifacts import ConfigError
from maquette.statistics import Interval, interval_score, percentile_interval, student_interval


def test_percentiles_of_a_known_sample() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx(Interval(5.0, 95.0))


def test_few_degrees_of_freedom_reach_as_far_out_as_student() -> None:
    samples = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    low, high = percentile_interval(samples, 0.9, degrees_of_freedom=8)
    assert high == pytest.approx(stats.t.ppf(0.95, 8), rel=1e-3)
    assert low == pytest.approx(-high, rel=1e-6)
    assert percentile_interval(samples, 0.9, degrees_of_freedom=0) == (-np.inf, np.inf)


def test_student_interval_is_that_of_a_mean() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    expected = stats.t.interval(0.9, 3, loc=values.mean(), scale=stats.sem(values))
    assert student_interval(values.mean(), stats.sem(values), 3) == pytest.approx(expected)


def test_interval_score_counts_width_and_miss() -> None:
    scores = interval_score([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 1.2, -0.1], 0.9)
    assert scores == pytest.approx([1.0, 1.0 + 20 * 0.2, 1.0 + 20 * 0.1])


def test_interval_score_is_best_for_the_true_quantiles() -> None:
    observed = np.random.default_rng(0).standard_normal(40_000)

    def mean_score(half: float) -> float:
        return float(interval_score(-half, half, observed, 0.9).mean())

    assert mean_score(1.645) < min(mean_score(1.3), mean_score(2.1))


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 90.0, np.nan])
def test_a_level_that_is_no_coverage_is_refused(level: float) -> None:
    with pytest.raises(ConfigError, match="coverage"):
        percentile_interval([1.0, 2.0], level)
