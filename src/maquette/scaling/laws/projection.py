"""The linear half of a loss surface, solved exactly; and from it the starts of every fit.

Given the two exponents, E + A/N^alpha + B/D^beta is linear in E, A and B. So for each pair of exponents the best
non-negative E, A, B are one small linear solve, and what is left to search has two dimensions and a condition
number near 11, where the search over all five has 3.5e11 (variable projection: Golub and Pereyra 1973).
"""

import itertools

import numpy as np
from numpy.typing import NDArray

from maquette.scaling.laws.forms import SurfaceModel
from maquette.scaling.laws.gauss_newton import Array, huber

_SUBSETS = [subset for size in (3, 2, 1) for subset in itertools.combinations(range(3), size)]


def non_negative_least_squares(basis: Array, target: Array, weights: Array) -> Array:
    """Coefficients (batch, k), none below zero, of least weighted squares, for k up to 3.

    `basis` (batch, k, n), `target` (batch, n), `weights` (batch, n). The optimum is the unconstrained solution on
    its own support, so the best of the at most seven supports whose solution is non-negative is exact.
    """
    batch, size, _ = basis.shape
    norm = np.sqrt(np.einsum("bkn,bn,bkn->bk", basis, weights, basis))
    basis = basis / np.where(norm > 0, norm, 1.0)[:, :, None]
    products = np.matmul(basis * weights[:, None, :], basis.transpose(0, 2, 1))
    moments = np.einsum("bkn,bn->bk", basis, weights * target)
    best, gained = np.zeros((batch, size)), np.zeros(batch)
    for subset in (list(s) for s in _SUBSETS if max(s) < size):
        matrix = products[:, subset][:, :, subset] + 1e-15 * np.eye(len(subset))
        solution = np.linalg.solve(matrix, moments[:, subset, None])[:, :, 0]
        gain = np.einsum("bk,bk->b", solution, moments[:, subset])
        better = np.all(solution >= 0, axis=1) & (gain > gained)
        row = np.zeros((batch, size))
        row[:, subset] = solution
        best, gained = np.where(better[:, None], row, best), np.where(better, gain, gained)
    return best / np.where(norm > 0, norm, 1.0)


def project_additive(model: SurfaceModel, theta: Array, target: Array, weights: Array) -> Array:
    """`theta` (batch, 5) of the additive form with E, A and B replaced by the best ones for its exponents."""
    ones = np.ones((len(theta), len(model.x)))
    basis = np.stack(
        [ones, np.exp(-np.exp(theta[:, 2, None]) * model.x), np.exp(-np.exp(theta[:, 4, None]) * model.z)], axis=1
    )
    linear = non_negative_least_squares(basis, target, weights)
    theta = theta.copy()
    theta[:, 0] = linear[:, 0]
    theta[:, [1, 3]] = np.log(np.maximum(linear[:, 1:], 1e-21))
    return np.clip(theta, model.lower, model.upper)


def starts(model: SurfaceModel, loss: Array, delta: float, count: int) -> Array:
    """The best `count` starts (count, p) of a grid over what is not linear, the rest solved for.

    The grid is over both slopes, and over gamma and E where the form frees them: given these,
    (L - E)^(1/gamma) is linear in A and B. Points count by their relative error.
    """
    slopes = np.array([0.03, 0.08, 0.16, 0.3, 0.5, 0.8, 1.3])
    names = model.names
    grids: dict[str, NDArray[np.float64]] = {"p": slopes}
    if "q" in names:
        grids["q"] = slopes
    if "gamma" in names:
        grids["gamma"] = (
            np.array([0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0]) if "q" not in names else np.array([0.2, 0.5, 1.0, 2.0])
        )
        if "E" in names:
            grids["E"] = np.array([0.0, 0.4, 0.7, 0.9]) * loss.min()
    mesh = dict(zip(grids, (axis.ravel() for axis in np.meshgrid(*grids.values(), indexing="ij")), strict=True))
    size = len(mesh["p"])
    gamma = mesh.get("gamma", np.ones(size))[:, None]
    first = np.exp(-mesh["p"][:, None] / gamma * model.x)
    second = np.exp(-mesh.get("q", gamma[:, 0])[:, None] / gamma * model.z)
    solve_floor = "E" in names and "gamma" not in names
    floor = mesh.get("E", np.zeros(size))
    target = (loss - floor[:, None]) ** (1 / gamma)
    columns = ([np.ones_like(first)] if solve_floor else []) + [first, second]
    linear = non_negative_least_squares(np.stack(columns, axis=1), target, target**-2.0)
    if solve_floor:
        floor, linear = linear[:, 0], linear[:, 1:]
    levels = gamma * np.log(np.maximum(linear, 1e-21))
    values = {"E": floor, "a": levels[:, 0], "b": levels[:, 1]}
    values |= {name: np.log(axis) for name, axis in mesh.items() if name != "E"}
    theta = np.clip(np.stack([values[name] for name in names], axis=1), model.lower, model.upper)
    prediction, _ = model.predict(theta)
    seen = np.log(loss) if model.logarithmic else loss
    objective = np.sum(huber(seen - prediction, delta), axis=1)
    return theta[np.argsort(np.where(np.isfinite(objective), objective, np.inf))[:count]]
