"""Calibration: whether what is said to happen with probability p happens in a share p of cases."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over [0, 1] that are not empty: mean probability said, share that came true, how many."""

    said: NDArray[np.float64]
    came_true: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, each bin by its count (Guo et al. 2017, equation 3)."""
        if not self.counts.sum():
            return float("nan")
        return float(np.average(np.abs(self.said - self.came_true), weights=self.counts))


def reliability(probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 10) -> Reliability:
    """How often events said to have `probabilities (n,)` came true: `outcomes (n,)` of 0 and 1."""
    said, true = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    places = np.minimum((said * bins).astype(np.int64), bins - 1)
    counts = np.bincount(places, minlength=bins)
    kept = counts > 0
    sums = [np.bincount(places, weights=values, minlength=bins)[kept] for values in (said, true)]
    return Reliability(sums[0] / counts[kept], sums[1] / counts[kept], counts[kept])
