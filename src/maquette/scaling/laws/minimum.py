"""The minimum of a curve known at a few points: by a parabola through all, or by a spline through each.

IsoFLOP curves (log loss over log N at one budget) and tuning curves (log loss over log learning rate at one size)
are both read this way.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import Akima1DInterpolator

from maquette.scaling.laws.runs import Array

METHODS = ("parabola", "akima")

NEAR = 0.05
"""A spline passes through every point, so between two sizes nearer than 5% it follows their noise, off to any depth:
such points are one to it."""


@dataclass(frozen=True)
class CurveMinimum:
    """Where a curve is least. `edge`: "" inside of the points, else at which end of them it still falls.

    `position`: from 0 (the least x) to 1 (the greatest). `curvature`: second derivative of the parabola through
    all points. Where there is an edge, `x` and `y` are that end's.
    """

    x: float
    y: float
    edge: str
    position: float
    curvature: float


def curve_minimum(x: Array, y: Array, method: str = "parabola") -> CurveMinimum:
    """The minimum of y over x, both (n,) with at least three distinct x; points of one x are averaged.

    parabola: least squares (Hoffmann et al. 2022, approach 2). akima: Akima's 1970 spline, which a far point bends
    only nearby, so a wide grid does no harm (as Porian et al. 2024 use it).
    """
    distinct, index = np.unique(x, return_inverse=True)
    means = np.bincount(index, y) / np.bincount(index)
    middle, width = distinct.mean(), distinct[-1] - distinct[0]
    square, slope, constant = np.polyfit(x - middle, y, 2)
    if method == "parabola":
        at = middle - slope / (2 * square) if square > 0 else np.nan
        inside = distinct[0] < at < distinct[-1]
        value = constant - slope**2 / (4 * square) if inside else np.nan
    else:
        knots, heights = _merged(x, y)
        if len(knots) < 3:
            knots, heights = distinct, means
        at, value = _spline_minimum(knots, heights)
        inside = knots[0] < at < knots[-1]
    if not inside:
        lowest = 0 if means[0] < means[-1] else -1
        at, value = distinct[lowest], means[lowest]
    edge = "" if inside else ("smallest" if at == distinct[0] else "largest")
    return CurveMinimum(float(at), float(value), edge, float((at - distinct[0]) / width), float(2 * square))


def _merged(x: Array, y: Array) -> tuple[Array, Array]:
    """Points nearer than `NEAR` to the first of them averaged, in the order of x."""
    order = np.argsort(x, kind="stable")
    group, first = np.zeros(len(x), int), x[order[0]]
    for before, index in itertools.pairwise(order):
        new = x[index] - first > NEAR
        group[index] = group[before] + new
        first = x[index] if new else first
    count = np.bincount(group)
    return np.bincount(group, x) / count, np.bincount(group, y) / count


def _spline_minimum(x: Array, y: Array) -> tuple[float, float]:
    """The least of a piecewise cubic: at one of the points, or where its derivative has a root."""
    spline = Akima1DInterpolator(x, y)
    roots = spline.derivative().roots(extrapolate=False)
    candidates = np.concatenate([x, roots[np.isfinite(roots)]])
    values = spline(candidates)
    best = int(np.argmin(values))
    return float(candidates[best]), float(values[best])
