"""Best-of-n: draw n answers, keep the one that a reward likes best. The baseline that costs no training."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from maquette.artifacts import ConfigError


def best_of_n_kl(n: int) -> float:
    """Divergence of best-of-n from the policy that is drawn from, in nats: `log n - (n - 1)/n` (Stiennon et al. 2020,
    appendix G.3); exact where no two answers score alike, an upper bound otherwise (Beirami et al. 2024)."""
    return math.log(n) - (n - 1) / n


def selection_weights(samples: int, n: int) -> NDArray[np.float64]:
    """Chance that the answer of rank k, from the worst, is the best of n drawn without replacement from `samples`:
    `C(k - 1, n - 1) / C(samples, n)`, (samples,)."""
    if not 1 <= n <= samples:
        raise ConfigError(f"The best of n={n} can't be told from {samples} answers.", f"Allowed: 1 to {samples}.")
    below = np.arange(samples, dtype=np.float64)
    enough = below >= n - 1
    logs = np.full(samples, -np.inf)
    logs[enough] = _log_choose(below[enough], n - 1) - _log_choose(np.array([float(samples)]), n)[0]
    return np.exp(logs)


def best_of_n_means(scores: ArrayLike, worths: ArrayLike, n: int) -> NDArray[np.float64]:
    """What the best of n by `scores` is worth by `worths`, expected over all ways to draw n: (prompts,).

    `scores`, `worths` (prompts, samples): each answer's score and worth (the gold reward, the score itself, a length).
    This unbiased estimate uses all samples for every n (Nakano et al. 2021, WebGPT, appendix I). Answers that score
    alike share their ranks.
    """
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
