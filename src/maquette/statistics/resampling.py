"""The bootstrap, with all resamples at once: a resample is how often each case was drawn.

A statistic is therefore a function of counts (resamples, n), which a mean, a rate or a fit takes as weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from maquette.artifacts import ConfigError
from maquette.statistics.intervals import Interval, IntervalEstimate, percentile_interval

Statistic = Callable[[NDArray[Any]], NDArray[Any]]
"""Counts (resamples, n) -> one number per resample (resamples,)."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap standard error, its interval and the resamples (resamples,) behind them."""

    value: float
    standard_error: float
    interval: Interval
    samples: NDArray[Any]

    @property
    def plain(self) -> IntervalEstimate:
        """Without its resamples."""
        return IntervalEstimate(self.value, *self.interval)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of first less second over the same cases; `p_value` is two-sided, for no difference."""

    difference: float
    standard_error: float
    interval: Interval
    p_value: float


def resample_counts(cases: int, resamples: int, generator: np.random.Generator) -> NDArray[Any]:
    """How often each case is drawn in each resample, (resamples, cases)."""
    return generator.multinomial(cases, np.full(cases, 1 / cases), size=resamples).astype(float)


def bootstrap(
    statistic: Statistic, cases: int, *, resamples: int = 2000, level: float = 0.9, seed: int = 0
) -> Estimate:
    """`statistic` of counts over `cases` cases, with its percentile interval.

    Raises `ConfigError` for fewer than two cases, or too few resamples for the level.
    """
    check_resamples(resamples, level)
    if cases < 2:
        raise ConfigError("A bootstrap needs at least two cases to draw from.")
    value = float(statistic(np.ones((1, cases)))[0])
    samples = np.asarray(statistic(resample_counts(cases, resamples, np.random.default_rng(seed))), float)
    return Estimate(value, float(samples.std(ddof=1)), percentile_interval(samples, level), samples)


def bootstrap_mean(values: ArrayLike, **options: Any) -> Estimate:
    """The mean of `values` (n,); `options` are `bootstrap`'s."""
    values = np.asarray(values, float)
    return bootstrap(lambda counts: counts @ values / counts.sum(axis=1), len(values), **options)


def paired_bootstrap(first: ArrayLike, second: ArrayLike, **options: Any) -> PairedDifference:
    """Mean of `first` less `second`, both (n,) over the same cases in the same order; `options` are `bootstrap`'s.

    The p-value is the share of resamples that lie as far from the difference as the difference from zero
    (Efron and Tibshirani 1993, section 16.4), counting the data as one resample.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ConfigError(f"Paired values need one length; these have {len(first)} and {len(second)}.")
    estimate = bootstrap_mean(first - second, **options)
    as_far = np.abs(estimate.samples - estimate.value) >= abs(estimate.value)
    p_value = (1 + int(as_far.sum())) / (1 + len(as_far))
    return PairedDifference(estimate.value, estimate.standard_error, estimate.interval, p_value)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values (n,) of n comparisons that were made together, each so adjusted that, if no difference is real, the
    chance of calling any of them one is at most the threshold.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure": the k-th smallest is multiplied by n - k + 1,
    and none is below one that was smaller."""
    values = np.asarray(p_values, float)
    order = np.argsort(values)
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted


def detectable_difference(standard_error: float, *, level: float = 0.95, power: float = 0.8) -> float:
    """The least difference that a two-sided test at `level` finds with a chance of `power`, where a difference is
    measured with this standard error: (z_(1 - alpha/2) + z_power) SE (Miller 2024, "Adding Error Bars to Evals",
    section 5; Card et al. 2020, "With Little Power Comes Great Responsibility")."""
    return float((norm.ppf((1 + level) / 2) + norm.ppf(power)) * standard_error)


def check_resamples(resamples: int, level: float) -> None:
    """Raises `ConfigError` where `resamples` are too few to have a case in each tail of `level`."""
    needed = int(np.ceil(round(2 / (1 - level), 6)))
    if resamples < needed:
        raise ConfigError(
            f"{resamples} resamples are too few for an interval of {level:.0%}.",
            f"Use at least {needed}; 1,000 is usual.",
        )
