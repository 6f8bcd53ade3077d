"""Shares of domains from their sizes: by size^alpha, or by UniMax."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.artifacts import ConfigError

Floats = NDArray[np.float64]


def size_weights(tokens: ArrayLike, alpha: float = 1.0) -> Floats:
    """Weights in proportion to tokens^alpha, `(domains,)`: 1 is proportional, 0 uniform; an empty domain gets none.

    With alpha = 1/T this is the temperature sampling of multilingual models. Raises `ConfigError` where all are empty.
    """
    sizes = np.asarray(tokens, np.float64)
    powers: Floats = np.where(sizes > 0, np.maximum(sizes, 1) ** alpha, 0.0)
    return _shares(powers)


def unimax_weights(tokens: ArrayLike, budget: float, max_epochs: float = 4.0) -> Floats:
    """As uniform as can be while no domain is read more than `max_epochs` times (Chung et al. 2023, algorithm 1).

    `budget` is the tokens of training. Where even that many epochs of everything are too few, weights are in
    proportion to size. Raises `ConfigError` where all domains are empty.
    """
    sizes = np.asarray(tokens, np.float64)
    shares, left = np.zeros(sizes.size), float(budget)
    order = np.argsort(sizes, kind="stable")
    for rank, domain in enumerate(order):
        shares[domain] = min(left / (sizes.size - rank), max_epochs * sizes[domain])
        left -= shares[domain]
    return _shares(shares)


def _shares(parts: Floats) -> Floats:
    total = parts.sum()
    if not total:
        raise ConfigError("No domain has tokens.", "Use more text, or a shorter context.")
    shares: Floats = parts / total
    return shares
