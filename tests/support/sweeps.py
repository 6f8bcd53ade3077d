"""Synthetic sweeps on surfaces whose truth is known, and the published runs where they are at hand."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from maquette.scaling.laws.surface import LossSurface

REFERENCE = Path(__file__).parents[3] / "shared" / "data"
"""Published runs (Besiroglu et al. 2024, Porian et al. 2024); they are not part of this repository."""

needs_reference = pytest.mark.skipif(
    not (REFERENCE / "chinchilla_points.csv").exists(), reason="the published runs are not on this machine"
)

TRUTHS = {
    "additive": LossSurface(E=1.8, A=480, B=2100, alpha=0.35, beta=0.37),
    "kaplan": LossSurface(E=0, A=2e11, B=5.4e13, alpha=0.8, beta=1, gamma=0.095),
    "general": LossSurface(E=1.5, A=2300, B=9900, alpha=0.42, beta=0.43, gamma=0.77),
}


class Sweep(NamedTuple):
    """Runs as columns (n,)."""

    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    budgets: np.ndarray


def isoflop_sweep(
    surface: LossSurface,
    budgets: np.ndarray,
    *,
    width: float = 4.0,
    sizes: int = 7,
    off: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Sweep:
    """At each budget, `sizes` models from 1/width to width times `off` times the best one, with relative `noise`."""
    compute = np.repeat(budgets, sizes)
    params = np.repeat(surface.optimal(budgets).params, sizes) * np.tile(
        np.geomspace(1 / width, width, sizes), len(budgets)
    )
    params = params * off
    tokens = compute / (6 * params)
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(params)))
    return Sweep(params, tokens, surface.loss(params, tokens) * scatter, compute)


def half_decades(first: float, count: int) -> np.ndarray:
    """`count` budgets from `first`, half a decade apart."""
    return first * 10 ** (0.5 * np.arange(count))
