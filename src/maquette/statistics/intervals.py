"""Intervals: from resamples, from a standard error, of ranks; what an interval, or a probability, is worth."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.artifacts import ConfigError


class Interval(NamedTuple):
    """From `low` to `high`."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """`high` less `low`."""
        return self.high - self.low

    def contains(self, value: float) -> bool:
        """Whether `value` lies within, ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class IntervalEstimate:
    """A number with its interval, as files hold it."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> Interval:
        return Interval(self.low, self.high)


def check_level(level: float) -> None:
    """Raises `ConfigError` where `level` is not a coverage between 0 and 1."""
    if not 0 < level < 1:
        raise ConfigError(f"level={level} is not a coverage.", "Give a number between 0 and 1, such as 0.9.")


def percentile_interval(samples: ArrayLike, level: float = 0.9, *, degrees_of_freedom: float = np.inf) -> Interval:
    """The middle `level` of a bootstrap distribution, `samples` (resamples,).

    With few `degrees_of_freedom` (points less fitted parameters) a normal's percentiles are too near: they are taken
    as far out as Student's quantiles lie (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section
    4.4), which with 20 makes 91.5% of 90%. Without any the interval is unbounded.
    """
    check_level(level)
    if degrees_of_freedom <= 0:
        return Interval(-np.inf, np.inf)
    from scipy.stats import norm, t

    tail = norm.sf(t.isf((1 - level) / 2, degrees_of_freedom))
    low, high = np.quantile(np.asarray(samples, float), [tail, 1 - tail])
    return Interval(float(low), float(high))


def student_interval(estimate: float, standard_error: float, degrees_of_freedom: float, level: float = 0.9) -> Interval:
    """`estimate` plus and minus Student's quantile of standard errors; unbounded without degrees of freedom."""
    check_level(level)
    if degrees_of_freedom <= 0:
        return Interval(-np.inf, np.inf)
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, degrees_of_freedom)) * standard_error
    return Interval(float(estimate - half), float(estimate + half))


@dataclass(frozen=True)
class MeanOverSeeds(IntervalEstimate):
    """A mean over seeds; `detectable`: the difference from 0 that so many seeds would have shown in 80 of 100 cases."""

    detectable: float


def mean_over_seeds(values: ArrayLike, level: float = 0.95) -> MeanOverSeeds:
    """Of `values (seeds,)`, with Student's interval. What is detectable is the standard error times the sum of the
    quantiles of the test and of its power (Lachin 1981, equation 2); unbounded for one seed, like the interval."""
    from scipy.stats import t

    values = np.asarray(values, float)
    mean, freedom = float(values.mean()), len(values) - 1
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if freedom else np.inf
    interval = student_interval(mean, error, freedom, level)
    detectable = float(t.ppf((1 + level) / 2, freedom) + t.ppf(0.8, freedom)) * error if freedom else np.inf
    return MeanOverSeeds(mean, interval.low, interval.high, detectable)


def interval_score(low: ArrayLike, high: ArrayLike, observed: ArrayLike, level: float = 0.9) -> NDArray[Any]:
    """Width plus 2 / (1 - level) times the miss; smaller is better (Gneiting and Raftery 2007, equation 43).

    A proper score: an interval earns nothing by being wider than it must, nor by missing.
    """
    check_level(level)
    low, high, observed = (np.asarray(value, float) for value in (low, high, observed))
    miss = np.maximum(low - observed, 0) + np.maximum(observed - high, 0)
    return np.asarray(high - low + 2 / (1 - level) * miss)


class RankInterval(NamedTuple):
    """A contender's rank (1 is the best) and the ranks that it takes in the middle `level` of the resamples."""

    rank: int
    low: int
    high: int


def rank_intervals(scores: ArrayLike, samples: ArrayLike, level: float = 0.9) -> list[RankInterval]:
    """Ranks by `scores` (k,), highest first, with intervals from joint resamples `samples` (resamples, k).

    Ties share the best rank. Ranking within each resample keeps what contenders have in common (one set of prompts)
    out of the comparison, which overlapping the contenders' own intervals does not.
    """
    check_level(level)
    rank = _ranks(np.asarray(scores, float)[None])[0]
    ranks = _ranks(np.asarray(samples, float))
    low = np.quantile(ranks, (1 - level) / 2, axis=0, method="inverted_cdf")
    high = np.quantile(ranks, (1 + level) / 2, axis=0, method="inverted_cdf")
    return [RankInterval(int(r), int(a), int(b)) for r, a, b in zip(rank, low, high, strict=True)]


def _ranks(scores: NDArray[Any]) -> NDArray[Any]:
    """One more than the number of higher scores in the same row, (rows, k)."""
    from scipy.stats import rankdata

    return rankdata(-scores, method="min", axis=1)


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over [0, 1] that are not empty: mean predicted probability, observed share, how many."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, each bin by its count (Guo et al. 2017, equation 3)."""
        if not self.counts.sum():
            return float("nan")
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))


BINS = 10


def reliability(probabilities: ArrayLike, outcomes: ArrayLike) -> Reliability:
    """How often events predicted with `probabilities (n,)` happened: `outcomes (n,)` of 0 and 1, in ten bins."""
    predicted, happened = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    places = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    nonempty = counts > 0
    sums = [np.bincount(places, weights=values, minlength=BINS)[nonempty] for values in (predicted, happened)]
    return Reliability(sums[0] / counts[nonempty], sums[1] / counts[nonempty], counts[nonempty])
