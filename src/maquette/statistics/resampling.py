"""The bootstrap, with all resamples at once: a resample is how often each case was drawn.

A statistic is therefore a function of counts (resamples, n), which a mean, a rate or a fit takes as weights; the
jackknife is the same function on counts with one unit left out. Cases that belong together (answers to one prompt,
tokens of one document, seeds of one size) are drawn together: `clusters` names each case's unit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.artifacts import ConfigError
from maquette.statistics.intervals import Interval, bca_interval, percentile_interval

Statistic = Callable[[NDArray[Any]], NDArray[Any]]
"""Counts (resamples, n) -> one number per resample (resamples,)."""

METHODS = ("bca", "percentile")


@dataclass(frozen=True)
class Estimate:
    """A statistic with its bootstrap standard error, its interval and the resamples (resamples,) behind them."""

    value: float
    standard_error: float
    interval: Interval
    samples: NDArray[Any]


@dataclass(frozen=True)
class PairedDifference:
    """Mean of first less second over the same cases; `p_value` is two-sided, for no difference."""

    difference: float
    standard_error: float
    interval: Interval
    p_value: float


def resample_counts(
    cases: int, resamples: int, generator: np.random.Generator, clusters: ArrayLike | None = None
) -> NDArray[Any]:
    """How often each case is drawn in each resample, (resamples, cases); whole clusters where these are given."""
    if clusters is None:
        return generator.multinomial(cases, np.full(cases, 1 / cases), size=resamples).astype(float)
    unit = _units(cases, clusters)
    units = int(unit.max()) + 1
    return generator.multinomial(units, np.full(units, 1 / units), size=resamples).astype(float)[:, unit]


def bootstrap(
    statistic: Statistic,
    cases: int,
    *,
    clusters: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.9,
    method: str = "bca",
    seed: int = 0,
) -> Estimate:
    """`statistic` of counts over `cases` cases, with its interval by `method`: bca or percentile.

    Raises `ConfigError` for an unknown method, fewer than two units, or too few resamples for the level.
    """
    if method not in METHODS:
        raise ConfigError(f"method={method} is not known.", f"Allowed: {', '.join(METHODS)}.")
    check_resamples(resamples, level)
    unit = np.arange(cases) if clusters is None else _units(cases, clusters)
    if cases < 1 or unit.max() < 1:
        raise ConfigError("A bootstrap needs at least two cases (or two clusters) to draw from.")
    value = float(statistic(np.ones((1, cases)))[0])
    samples = np.asarray(statistic(resample_counts(cases, resamples, np.random.default_rng(seed), unit)), float)
    if method == "bca":
        left_out = (unit[None, :] != np.arange(unit.max() + 1)[:, None]).astype(float)
        interval = bca_interval(value, samples, np.asarray(statistic(left_out), float), level)
    else:
        interval = percentile_interval(samples, level)
    return Estimate(value, float(samples.std(ddof=1)), interval, samples)


def bootstrap_mean(values: ArrayLike, **options: Any) -> Estimate:
    """The mean of `values` (n,); `options` are `bootstrap`'s. With clusters it is the mean over cases, not clusters."""
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


def check_resamples(resamples: int, level: float) -> None:
    """Raises `ConfigError` where `resamples` are too few to have a case in each tail of `level`."""
    needed = int(np.ceil(round(2 / (1 - level), 6)))
    if resamples < needed:
        raise ConfigError(
            f"{resamples} resamples are too few for an interval of {level:.0%}.",
            f"Use at least {needed}; 1,000 is usual.",
        )


def _units(cases: int, clusters: ArrayLike) -> NDArray[np.intp]:
    names = np.asarray(clusters)
    if names.shape != (cases,):
        raise ConfigError(f"clusters names a unit for each of {cases} cases, but has shape {names.shape}.")
    return np.unique(names, return_inverse=True)[1]
