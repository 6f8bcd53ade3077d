"""Runs of different kinds under one law: do they lie apart from it?

Where one run copies from its context and another does not yet, or depth changes along the family, one law is fitted
to two regimes. A law can't tell which regime a larger run will be in, so what lies between them is uncertainty.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from maquette.scaling.errors import LawError
from maquette.scaling.laws.gauss_newton import Array


def offset_of_kinds(residual: Array, kinds: NDArray[np.generic]) -> tuple[float, list[str]]:
    """The standard deviation between the kinds' mean log residuals, and what to say; 0 where an F test finds none.

    `residual` (n,): log of loss over law. `kinds` (n,): each run's kind, by any name.
    """
    if kinds.shape != residual.shape:
        raise LawError(f"kinds has shape {kinds.shape} where there are {len(residual)} runs.")
    names, group = np.unique(kinds, return_inverse=True)
    freedom = len(residual) - len(names)
    if len(names) < 2 or freedom < 1:
        return 0.0, []
    counts = np.bincount(group)
    means = np.bincount(group, residual) / counts
    between = float(counts @ (means - residual.mean()) ** 2) / (len(names) - 1)
    within = float(np.sum((residual - means[group]) ** 2)) / freedom
    p_value = float(f_distribution.sf(between / within, len(names) - 1, freedom)) if within else 0.0
    if p_value >= 0.05:
        return 0.0, []
    offsets = ", ".join(f"{name} {mean:+.1%}" for name, mean in zip(names, means, strict=True))
    said = f"Runs of different kinds lie apart from the law ({offsets}; p = {p_value:.2g}): intervals widened."
    return float(means.std(ddof=1)), [said]
