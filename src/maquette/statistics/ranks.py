"""Ranks with their intervals: how sure a leaderboard's order is."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.statistics.intervals import check_level


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
    return 1 + np.sum(scores[:, None, :] > scores[:, :, None], axis=2)
