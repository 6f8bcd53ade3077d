"""The best size of a budget: a line through the minima of the IsoFLOP curves, shrunk towards published exponents.

    ln N*(C) = mean ln N* + a (ln C - mean ln C)
    a = (sum x y / .15^2 + .5 / .06^2) / (sum x^2 / .15^2 + 1 / .06^2)

x and y are ln C and ln N* of the minima, less their means: a regression whose slope has the prior .5 +- .06, mean and
spread of the exponents of Kaplan et al. 2020 (recounted: Pearce and Song 2024), Hoffmann et al. 2022, Porian et al.
2024 and Dubey et al. 2024; a minimum is known to about 15%. Whatever the loss is predicted with, the size comes from
here: the optimum of a fitted surface is found by its slopes far from the runs, and gave away 4 to 16% of the loss on
published sweeps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from maquette.scaling.laws.minimum import curve_minimum
from maquette.scaling.laws.runs import Array, Runs
from maquette.statistics import Interval

EXPONENT, EXPONENT_DEVIATION = 0.5, 0.06
MINIMUM_DEVIATION = 0.15
FREEDOM = 8
"""Of Student's t of the interval."""

NEAR = 4.0
"""The parabola goes through the runs within this factor, in N, of the best run of their budget."""

UNKNOWN_DEVIATION = 0.5
"""Of ln N* where the runs have no minimum, and a fitted surface had to say where it may be."""


@dataclass(frozen=True)
class SizeLine:
    """ln N* = `level` + `exponent` (ln C - `centre`). `minima`: budget and N* of those that have a minimum, (K, 2);
    `edges`: the budgets whose loss still falls at an end of their sizes. `warnings`: what is to be said."""

    level: float
    exponent: float
    exponent_deviation: float
    centre: float
    minima: Array
    edges: tuple[tuple[float, str], ...]
    warnings: tuple[str, ...]

    def log_params(self, compute: ArrayLike) -> Array:
        """ln N* at `compute` FLOPs."""
        return np.asarray(self.level + self.exponent * (np.log(np.asarray(compute, float)) - self.centre))

    def deviation(self, compute: ArrayLike) -> Array:
        """Standard deviation of ln N* at `compute`: of a minimum, of their mean, and of the slope."""
        count, each = len(self.minima), MINIMUM_DEVIATION
        at_centre = each**2 * (1 + 1 / count) if count else UNKNOWN_DEVIATION**2
        distance = np.log(np.asarray(compute, float)) - self.centre
        return np.asarray(np.sqrt(at_centre + (self.exponent_deviation * distance) ** 2))

    def best_size(self, compute: ArrayLike, level: float = 0.9) -> tuple[Array, tuple[Array, Array]]:
        """N* at `compute`, and the interval in which it lies."""
        middle, half = self.log_params(compute), t.ppf((1 + level) / 2, FREEDOM) * self.deviation(compute)
        return np.exp(middle), (np.exp(middle - half), np.exp(middle + half))

    @property
    def interval(self) -> Interval:
        """Of the exponent, at 90%."""
        half = float(t.ppf(0.95, FREEDOM)) * self.exponent_deviation
        return Interval(self.exponent - half, self.exponent + half)


def fit_size_line(runs: Runs, surface_minimum: Callable[[float], float]) -> SizeLine:
    """The line through the inner minima of the curves that the runs' budgets make.

    Where no budget has one, the line goes through what `surface_minimum` says of the middle compute.
    """
    params, loss, compute, budgets = runs.params, runs.loss, runs.compute, runs.budget
    levels = np.unique(budgets)
    # Runs of one budget that differ in compute (a ladder has no budgets) are moved to its middle along the best runs.
    best = np.array([np.log(loss[budgets == budget]).min() for budget in levels])
    slope = float(np.polyfit(np.log(levels), best, 1)[0]) if len(levels) > 1 else 0.0
    minima, edges = [], []
    for budget in levels:
        here = np.flatnonzero(budgets == budget)
        x = np.log(params[here])
        y = np.log(loss[here]) - slope * (np.log(compute[here]) - np.log(compute[here]).mean())
        near = np.abs(x - x[np.argmin(y)]) <= np.log(NEAR) + 1e-9
        if len(np.unique(x[near])) < 3:
            continue
        minimum = curve_minimum(x[near], y[near])
        if minimum.edge:
            edges.append((float(budget), minimum.edge))
        else:
            minima.append((np.log(compute[here]).mean(), minimum.x))
    return _line(np.array(minima).reshape(-1, 2), tuple(edges), len(levels), compute, surface_minimum)


def _line(
    minima: Array,
    edges: tuple[tuple[float, str], ...],
    budgets: int,
    compute: Array,
    surface_minimum: Callable[[float], float],
) -> SizeLine:
    warnings = []
    if len(minima):
        (centre, level), (x, y) = minima.mean(axis=0), (minima - minima.mean(axis=0)).T
        known = x @ x / MINIMUM_DEVIATION**2 + 1 / EXPONENT_DEVIATION**2
        exponent = (x @ y / MINIMUM_DEVIATION**2 + EXPONENT / EXPONENT_DEVIATION**2) / known
        deviation = known**-0.5
        if edges:
            where = ", ".join(f"{budget:.3g} ({edge})" for budget, edge in edges)
            warnings.append(f"The loss still falls at an end of the sizes at budgets {where}: add sizes beyond it.")
    else:
        centre = float(np.log(compute).mean())
        level = float(np.log(surface_minimum(float(np.exp(centre)))))
        exponent, deviation = EXPONENT, EXPONENT_DEVIATION
        warnings.append(
            f"None of {budgets} budgets has a minimum inside of its sizes: the best size is where the fitted surface "
            "has it, and uncertain."
        )
    budgets_and_sizes = np.exp(minima)
    return SizeLine(
        float(level), float(exponent), float(deviation), float(centre), budgets_and_sizes, edges, tuple(warnings)
    )
