"""The three forms of a loss surface as models that can be fitted, in coordinates that are well conditioned.

A, alpha and gamma of E + (A/N^alpha + B/D^beta)^gamma trade off against each other over any grid one can afford:
their errors are correlated above .99. The same surface is

    E + (exp(v1 / gamma) + exp(v2 / gamma))^gamma,  v1 = a - p (ln N - mean ln N),  v2 = b - q (ln D - mean ln D)

where a and p are level and slope, at the middle of the grid, of the power law that holds where the model is what
limits the loss, b and q the same for data, and gamma only says how sharply one gives way to the other.

The linear half of a surface is solved exactly, and from it come the starts of every fit. Given the two exponents,
E + A/N^alpha + B/D^beta is linear in E, A and B. So for each pair of exponents the best non-negative E, A, B are one
small linear solve, and what is left to search has two dimensions and a condition number near 11, where the search over
all five has 3.5e11 (variable projection: Golub and Pereyra 1973).
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from maquette.scaling.laws.gauss_newton import huber
from maquette.scaling.laws.runs import Array, LawError
from maquette.scaling.laws.surface import LossSurface

FORMS: dict[str, tuple[str, ...]] = {
    "additive": ("E", "A", "B", "alpha", "beta"),
    "kaplan": ("A", "B", "alpha", "gamma"),
    "general": ("E", "A", "B", "alpha", "beta", "gamma"),
}
"""Each form's free parameters; the others are E = 0, beta = 1, gamma = 1."""

# Slopes of the power laws and gamma are searched within these: far outside of what anyone has measured.
_SLOPES = (1e-4, 20.0)
# Below the least gamma the larger of the two power laws is all there is; kaplan's gamma is a slope as well.
_LEAST_GAMMA = {"kaplan": 0.01, "general": 0.05}
_GREATEST_GAMMA = 50.0


@dataclass(frozen=True)
class SurfaceModel:
    """A form over fixed points. Coordinates: [E,] a, ln p, b, [ln q,] [ln gamma]; kaplan's q is gamma itself.

    `x`, `z` (n,): ln N and ln D less their `centre`. `logarithmic`: predictions are of log loss rather than of loss.
    """

    form: str
    x: Array
    z: Array
    centre: tuple[float, float]
    logarithmic: bool

    @classmethod
    def over(cls, form: str, params: Array, tokens: Array, *, logarithmic: bool) -> "SurfaceModel":
        """The form over runs (n,), centred on them."""
        centre = float(np.log(params).mean()), float(np.log(tokens).mean())
        return cls(form, np.log(params) - centre[0], np.log(tokens) - centre[1], centre, logarithmic)

    def at(self, params: Array, tokens: Array) -> "SurfaceModel":
        """The same coordinates over other points (m,)."""
        return replace(self, x=np.log(params) - self.centre[0], z=np.log(tokens) - self.centre[1])

    @property
    def names(self) -> list[str]:
        """The coordinates' names, in order."""
        has = FORMS[self.form]
        names = ["E"] * ("E" in has) + ["a", "p", "b"] + ["q"] * ("beta" in has) + ["gamma"] * ("gamma" in has)
        return names

    @property
    def lower(self) -> Array:
        """Lower bounds, (p,)."""
        slope, gamma = np.log(_SLOPES[0]), np.log(_LEAST_GAMMA.get(self.form, 1.0))
        bounds = {"E": 0.0, "p": slope, "q": slope, "gamma": gamma}
        return np.array([bounds.get(name, -50.0) for name in self.names])

    @property
    def upper(self) -> Array:
        """Upper bounds, (p,)."""
        bounds = {"E": np.inf, "p": np.log(_SLOPES[1]), "q": np.log(_SLOPES[1]), "gamma": np.log(_GREATEST_GAMMA)}
        return np.array([bounds.get(name, 50.0) for name in self.names])

    def predict(self, theta: Array) -> tuple[Array, Array]:
        """`theta` (batch, p) -> loss or log loss (batch, n) and its derivatives (batch, p, n)."""
        column = {name: theta[:, index, None] for index, name in enumerate(self.names)}
        gamma = np.exp(column["gamma"]) if "gamma" in column else np.ones((1, 1))
        slope_params = np.exp(column["p"])
        slope_tokens = np.exp(column["q"]) if "q" in column else gamma
        limits = column["a"] - slope_params * self.x, column["b"] - slope_tokens * self.z
        first, second = limits[0] / gamma, limits[1] / gamma
        log_sum = np.logaddexp(first, second)
        share = np.exp(first - log_sum)
        reducible = np.exp(gamma * log_sum)
        other = reducible - reducible * share
        share = reducible * share

        derivatives = {"a": share, "p": -slope_params * self.x * share, "b": other}
        by_slope_tokens = -slope_tokens * self.z * other
        if "q" in column:
            derivatives["q"] = by_slope_tokens
        if "gamma" in column:
            derivatives["gamma"] = gamma * log_sum * reducible - share * limits[0] - other * limits[1]
            if "q" not in column:
                derivatives["gamma"] = derivatives["gamma"] + by_slope_tokens
        loss = reducible
        if "E" in column:
            derivatives["E"] = np.ones_like(reducible)
            loss = column["E"] + reducible
        jacobian = np.stack([derivatives[name] for name in self.names], axis=1)
        if self.logarithmic:
            return np.log(loss), jacobian / loss[:, None, :]
        return loss, jacobian

    def parameters(self, theta: Array) -> Array:
        """`theta` (batch, p) -> E, A, B, alpha, beta, gamma (batch, 6)."""
        column = dict(zip(self.names, theta.T, strict=True))
        gamma = np.exp(column["gamma"]) if "gamma" in column else np.ones(len(theta))
        slope_params = np.exp(column["p"])
        slope_tokens = np.exp(column["q"]) if "q" in column else gamma
        log_first = (column["a"] + slope_params * self.centre[0]) / gamma
        log_second = (column["b"] + slope_tokens * self.centre[1]) / gamma
        floor = column.get("E", np.zeros(len(theta)))
        # An exponent that ran away takes its coefficient out of the range of a double; the surface stays defined.
        first, second = np.exp(np.clip(log_first, -690, 690)), np.exp(np.clip(log_second, -690, 690))
        return np.stack([floor, first, second, slope_params / gamma, slope_tokens / gamma, gamma], axis=1)


def coordinates(model: SurfaceModel, surface: LossSurface) -> Array:
    """The coordinates (p,) of a surface of the model's form."""
    slope_params, slope_tokens = surface.alpha * surface.gamma, surface.beta * surface.gamma
    values = {
        "E": surface.E,
        "a": surface.gamma * np.log(surface.A) - slope_params * model.centre[0],
        "p": np.log(slope_params),
        "b": surface.gamma * np.log(surface.B) - slope_tokens * model.centre[1],
        "q": np.log(slope_tokens),
        "gamma": np.log(surface.gamma),
    }
    return np.array([values[name] for name in model.names])


def surface_from(parameters: Array) -> LossSurface:
    """`parameters` (6,): E, A, B, alpha, beta, gamma."""
    return LossSurface(*(float(value) for value in parameters))


def check_form(form: str) -> None:
    """Raises `LawError` where `form` is none of `FORMS`."""
    if form not in FORMS:
        raise LawError(f"form={form} is not known.", f"Allowed: {', '.join(FORMS)}.")


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
