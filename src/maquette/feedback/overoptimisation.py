"""Where optimising a stand-in stops to help: the curves of Gao, Schulman and Hilton 2022, with intervals.

With d = sqrt(KL), the gold reward gained over the initial policy follows `d (alpha - beta log d)` for reinforcement
learning and `d (alpha - beta d)` for best-of-n (their equations in section 1). Both are linear in alpha and beta, so a
fit is one least-squares solution, and its bootstrap costs next to nothing.

Best-of-n, which draws n completions and keeps the one that a reward likes best, is the baseline that costs no training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from maquette.artifacts import ConfigError
from maquette.statistics import Interval, percentile_interval


def best_of_n_kl(n: int) -> float:
    """KL divergence of best-of-n from the policy that is drawn from, in nats: `log n - (n - 1)/n` (Stiennon et al.
    2020, appendix G.3); exact where no two completions score alike, an upper bound otherwise (Beirami et al. 2024)."""
    return math.log(n) - (n - 1) / n


def selection_weights(samples: int, n: int) -> NDArray[np.float64]:
    """Chance that the completion of rank k, from the worst, is the best of n drawn without replacement from `samples`:
    `C(k - 1, n - 1) / C(samples, n)`, (samples,)."""
    if not 1 <= n <= samples:
        raise ConfigError(
            f"The best of n={n} can't be estimated from {samples} completions.", f"Allowed: 1 to {samples}."
        )
    below = np.arange(samples, dtype=np.float64)
    enough = below >= n - 1
    logs = np.full(samples, -np.inf)
    logs[enough] = _log_choose(below[enough], n - 1) - _log_choose(np.array([float(samples)]), n)[0]
    return np.exp(logs)


def best_of_n_means(scores: ArrayLike, worths: ArrayLike, n: int) -> NDArray[np.float64]:
    """What the best of n by `scores` is worth by `worths`, expected over all ways to draw n: (prompts,).

    `scores`, `worths` (prompts, samples): each completion's score and worth (the gold reward, the score itself, a
    length). This unbiased estimate uses all samples for every n (Nakano et al. 2021, WebGPT, appendix I). Completions
    that score alike share their ranks."""
    scores, worths = np.atleast_2d(np.asarray(scores, float)), np.atleast_2d(np.asarray(worths, float))
    if scores.shape != worths.shape:
        raise ConfigError(f"Scores have the shape {scores.shape}, worths {worths.shape}.")
    weights = selection_weights(scores.shape[1], n)
    order = np.argsort(scores, axis=1, kind="stable")
    ranked, worth = np.take_along_axis(scores, order, 1), np.take_along_axis(worths, order, 1)
    return np.array([_shared(row, weights) @ value for row, value in zip(ranked, worth, strict=True)])


def powers_of_two(most: int) -> Sequence[int]:
    """1, 2, 4 ... up to `most`."""
    return [2**power for power in range(int(math.log2(most)) + 1)]


def _shared(ranked: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights by rank, with those of equal scores averaged."""
    _, group = np.unique(ranked, return_inverse=True)
    return (np.bincount(group, weights) / np.bincount(group))[group]


def _log_choose(total: NDArray[np.float64], chosen: float) -> NDArray[np.float64]:
    return gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)


KINDS = ("rl", "best_of_n")


@dataclass(frozen=True)
class OveroptimisationCurve:
    """`R(d) = d (alpha - beta log d)` (`kind` rl) or `d (alpha - beta d)` (best_of_n); `alpha` is what optimisation
    gains at first, `beta` how soon it turns. The intervals are bootstrap ones at `level`; `samples (resamples, 2)`."""

    kind: str
    alpha: float
    beta: float
    alpha_interval: Interval | None
    beta_interval: Interval | None
    peak: float | None
    peak_interval: Interval | None
    samples: NDArray[Any]

    def gain(self, distance: ArrayLike) -> NDArray[np.float64]:
        """Gold reward over the initial policy's at d = sqrt(KL), where d >= 0."""
        return _features(np.asarray(distance, float), self.kind) @ np.array([self.alpha, self.beta])

    def band(self, distance: ArrayLike, level: float = 0.9) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends of the curve at each d. Raises `ConfigError` where nothing was resampled."""
        if not len(self.samples):
            raise ConfigError("The fit has no resamples, so no band.", "Fit with bootstrap=500.")
        curves = self.samples @ _features(np.asarray(distance, float), self.kind).T
        low, high = np.quantile(curves, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


def fit_overoptimisation(
    distances: ArrayLike,
    gains: ArrayLike,
    kind: str,
    *,
    bootstrap: int = 500,
    level: float = 0.9,
    seed: int = 0,
) -> OveroptimisationCurve:
    """Least squares through (d, gain) points.

    `distances`, `gains` (n,): sqrt(KL) and gold reward less the initial policy's. The points of a training curve
    are not independent, so the bootstrap draws residuals of the fit (Wu's wild bootstrap, with random signs), which
    keeps the points where they are. `peak` is where the gain is greatest, None where the curve does not turn.
    Raises `ConfigError` for an unknown kind, fewer than three points, or a d below 0.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind} is not known.", f"Allowed: {', '.join(KINDS)}.")
    distances, gains = np.asarray(distances, float), np.asarray(gains, float)
    if distances.shape != gains.shape or distances.ndim != 1:
        raise ConfigError(f"Distances {distances.shape} and gains {gains.shape} need one length.")
    if (distances < 0).any() or not np.isfinite(distances).all() or not np.isfinite(gains).all():
        raise ConfigError("Distances have to be finite and at least 0, gains finite.")
    if len(np.unique(distances[distances > 0])) < 3:
        raise ConfigError("A curve needs points at three distances above 0.", "Measure more policies, or for longer.")
    features = _features(distances, kind)
    solve = np.linalg.pinv(features)
    best = solve @ gains
    fitted = features @ best
    freedom = np.sqrt(len(gains) / max(1, len(gains) - 2))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(bootstrap, len(gains)))
    samples = (fitted + freedom * (gains - fitted) * signs) @ solve.T
    intervals: list[Interval | None] = [None, None, None]
    if bootstrap:
        intervals[:2] = [percentile_interval(samples[:, place], level) for place in (0, 1)]
        peaks = np.array([_peak(alpha, beta, kind) for alpha, beta in samples])
        turning = ~np.isnan(peaks)
        if turning.mean() > level:  # otherwise whether it turns at all is not known
            intervals[2] = percentile_interval(peaks[turning], level)
    peak = _peak(best[0], best[1], kind)
    return OveroptimisationCurve(
        kind, float(best[0]), float(best[1]), intervals[0], intervals[1],
        None if np.isnan(peak) else float(peak), intervals[2], samples,
    )  # fmt: skip


def _features(distance: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """(n, 2): what alpha and beta are multiplied by."""
    if kind == "best_of_n":
        return np.stack([distance, -(distance**2)], axis=1)
    safe = np.where(distance > 0, distance, 1.0)
    return np.stack([distance, -distance * np.log(safe)], axis=1)


def _peak(alpha: float, beta: float, kind: str) -> float:
    """The d of the greatest gain: exp(alpha / beta - 1), or alpha / (2 beta); NaN where the curve only rises."""
    if beta <= 0 or (kind == "best_of_n" and alpha <= 0):
        return float("nan")
    return float(np.exp(min(alpha / beta - 1, 50.0)) if kind == "rl" else alpha / (2 * beta))
