"""A form of law that a user wrote, fitted and compared like the built-in ones.

    class Farseer:
        formula = "L = E + A / N^alpha + B / D^(beta N^delta)"
        parameters = {"E": (0, 5), "A": (1e-3, 1e9), "alpha": (0.01, 3), "B": (1e-3, 1e9), "beta": (0.01, 3)}

        def loss(self, N, D, *, E, A, alpha, B, beta):
            return E + A / N**alpha + B / D**beta

    compare_forms(params, tokens, loss, compute, forms=[Farseer])      # or its name: "my_laws:Farseer"

It is fitted by least squares of log loss. A parameter whose lower bound is above 0 is searched in its logarithm, since
coefficients range over decades. Derivatives are finite differences, so the whole bootstrap is one batch of NumPy calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from maquette.artifacts.settings import is_dotted
from maquette.artifacts.targets import import_target, users_code
from maquette.scaling.laws.gauss_newton import minimise
from maquette.scaling.laws.runs import Array, LawError
from maquette.statistics import Interval, percentile_interval, resample_counts

STARTS = 512
"""Points between the bounds at which the form is evaluated."""

_STAGES = ((8, 15), (2, 40), (1, 400))
"""So many of the best are carried on, for at most so many steps each."""

_STEP = 1e-6
"""Of finite differences, in units of a parameter's logarithm or of its range."""


class LawForm(Protocol):
    """What a form of one's own has. `name` (default: of its class) and `formula` are for tables and the card."""

    parameters: Mapping[str, tuple[float, float]]
    """Each parameter's finite lower and upper bound, wide: starts are drawn between them."""

    def loss(self, params: Array, tokens: Array, **parameters: Any) -> Array:
        """Loss in nats per token of models of `params` N trained on `tokens` D. All arguments broadcast: parameters
        arrive as columns (batch, 1), N and D as rows (n,)."""
        ...


@dataclass(frozen=True)
class CustomForm:
    """A `LawForm`, checked, with the name under which it appears."""

    name: str
    formula: str
    target: str
    lower: Array
    upper: Array
    names: tuple[str, ...]
    form: LawForm

    def losses(self, params: ArrayLike, tokens: ArrayLike, values: Array) -> Array:
        """`values` (batch, p) -> loss (batch, n) at N and D (n,)."""
        params, tokens = np.atleast_1d(np.asarray(params, float)), np.atleast_1d(np.asarray(tokens, float))
        columns = dict(zip(self.names, values.T[:, :, None], strict=True))
        with users_code(f"{self.target}.loss"), np.errstate(all="ignore"):
            loss = np.asarray(self.form.loss(params, tokens, **columns), float)
        try:
            return np.array(np.broadcast_to(loss, (len(values), len(params))))
        except ValueError:
            raise LawError(
                f"{self.target}.loss gives an array of shape {loss.shape} where N and D have {params.shape} and its "
                f"parameters {(len(values), 1)}.",
                "Write it with NumPy so that they broadcast.",
            ) from None


def custom_form(form: Any) -> CustomForm:
    """A form given as an object, a class or a dotted name. Raises `LawError` for what is missing or makes no sense."""
    target = form if isinstance(form, str) else ""
    if isinstance(form, str):
        form = import_target(form, key="form")
    if isinstance(form, type):
        target = target or f"{form.__module__}:{form.__qualname__}"
        with users_code(target):
            form = form()
    target = target or f"{type(form).__module__}:{type(form).__qualname__}"
    bounds = getattr(form, "parameters", None)
    if not isinstance(bounds, Mapping) or not bounds or not callable(getattr(form, "loss", None)):
        raise LawError(
            f"{target} is not a form of law.",
            "It needs `parameters = {name: (low, high)}` and `loss(self, params, tokens, **parameters)`.",
        )
    for name, pair in bounds.items():
        if len(pair) != 2 or not np.all(np.isfinite(pair)) or not pair[0] < pair[1]:
            raise LawError(
                f"{target}: the bounds of {name} are {pair}.", "Give two finite numbers, the lower one first."
            )
    low, high = np.array(list(bounds.values()), float).T
    name = str(getattr(form, "name", type(form).__name__))
    if not name or is_dotted(name):
        raise LawError(f"{target}: {name!r} is not a name for tables.", "Give it a plain word as `name`.")
    formula = str(getattr(form, "formula", f"{target} of {', '.join(bounds)}"))
    return CustomForm(name, formula, target, low, high, tuple(bounds), form)


@dataclass(frozen=True)
class CustomModel:
    """The form over fixed runs, in coordinates in which its parameters have one scale; of log loss."""

    form: CustomForm
    params: Array
    tokens: Array

    @property
    def logarithmic(self) -> Array:
        return np.asarray(self.form.lower > 0)

    @property
    def lower(self) -> Array:
        return self.coordinates(self.form.lower)

    @property
    def upper(self) -> Array:
        return self.coordinates(self.form.upper)

    def coordinates(self, values: Array) -> Array:
        return np.where(self.logarithmic, np.log(np.where(self.logarithmic, values, 1.0)), values)

    def values(self, theta: Array) -> Array:
        return np.where(self.logarithmic, np.exp(np.where(self.logarithmic, theta, 0.0)), theta)

    def log_loss(self, theta: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.log(self.form.losses(self.params, self.tokens, self.values(theta)))

    def predict(self, theta: Array) -> tuple[Array, Array]:
        """`theta` (batch, p) -> ln L (batch, n) and its derivatives (batch, p, n), one-sided at a bound."""
        batch, count = theta.shape
        step = _STEP * np.where(self.logarithmic, 1.0, self.form.upper - self.form.lower)
        shifts = np.eye(count) * step
        above = np.minimum(theta[:, None] + shifts, self.upper)
        below = np.maximum(theta[:, None] - shifts, self.lower)
        width = np.einsum("bpp->bp", above - below)
        points = np.concatenate([theta[:, None], above, below], axis=1).reshape(-1, count)
        values = self.log_loss(points).reshape(batch, 2 * count + 1, -1)
        with np.errstate(invalid="ignore"):  # of values that are not finite
            jacobian = (values[:, 1 : count + 1] - values[:, count + 1 :]) / width[:, :, None]
        return values[:, 0], np.nan_to_num(jacobian, nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True)
class CustomFit:
    """A fitted form of a user's. `samples` (resamples, p): its parameters in each bootstrap resample; without a
    bootstrap there are none, and no `interval` or `standard_error`."""

    form: CustomForm
    parameters: Mapping[str, float]
    interval: Mapping[str, Interval]
    standard_error: Mapping[str, float]
    noise: float
    degrees_of_freedom: int
    samples: Array
    residuals: Array
    warnings: tuple[str, ...]

    def log_loss(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """ln L at N and D, (m,)."""
        return np.log(self.form.losses(params, tokens, np.array([list(self.parameters.values())]))[0])

    def best_params(self, product: float, around: float) -> float:
        """N of least loss among those with N D = `product`, searched within four decades of `around`."""
        return self._minimum(np.array([list(self.parameters.values())]), product, around)

    def exponent(self, product: float, around: float, level: float) -> tuple[float, Interval]:
        """a in N* ~ C^a over the decade beyond `product`, and its interval from (at most 100) resamples."""

        def slope(values: Array) -> float:
            first = self._minimum(values, product, around)
            return float(np.log10(self._minimum(values, 10 * product, first) / first))

        slopes = [slope(row[None]) for row in self.samples[:100]]
        exponents = slope(np.array([list(self.parameters.values())]))
        return exponents, percentile_interval(slopes, level, degrees_of_freedom=self.degrees_of_freedom)

    def _minimum(self, values: Array, product: float, around: float) -> float:
        middle = np.log(around)
        grid = np.linspace(middle - np.log(1e4), middle + np.log(1e4), 65)
        losses = self.form.losses(np.exp(grid), product / np.exp(grid), values)[0]
        best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 32
        solution = minimize_scalar(
            lambda x: float(self.form.losses([np.exp(x)], [product / np.exp(x)], values)[0, 0]),
            bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 64)]),
            method="bounded",
        )
        return float(np.exp(solution.x))


def fit_custom(
    form: CustomForm,
    params: Array,
    tokens: Array,
    loss: Array,
    *,
    bootstrap: int = 200,
    seed: int = 0,
    level: float = 0.9,
) -> CustomFit:
    """Fits a form of a user's to runs (n,). Raises `LawError` where they are too few or its loss is never finite."""
    freedom = len(loss) - len(form.names)
    if freedom < 1:
        raise LawError(f"{len(loss)} runs can't determine {len(form.names)} parameters of {form.name}.", "Add runs.")
    model, target = CustomModel(form, params, tokens), np.log(loss)
    draws = np.random.default_rng(0).random((STARTS, len(form.names)))
    starts = model.lower + draws * (model.upper - model.lower)
    errors = np.sum((model.log_loss(starts) - target) ** 2, axis=1)
    usable = np.flatnonzero(np.isfinite(errors))
    if not len(usable):
        raise LawError(
            f"{form.target}.loss is not finite and positive anywhere between its bounds.", "Widen the bounds."
        )
    theta, order = starts[usable], errors[usable]
    for carried, steps in _STAGES:
        best = np.argsort(order, kind="stable")[:carried]
        minima = minimise(model, theta[best], target, iterations=steps, tolerance=1e-9)
        theta, order = minima.theta, minima.objective
    samples = np.empty((0, len(form.names)))
    if bootstrap:
        counts = resample_counts(len(loss), bootstrap, np.random.default_rng(seed))
        again = minimise(model, np.repeat(theta, bootstrap, axis=0), target, counts, tolerance=1e-8)
        samples = model.values(again.theta)
    values = model.values(theta)[0]
    residuals = target - model.log_loss(theta)[0]
    warnings = [
        f"{name} ran to the edge of its bounds: widen them, or these runs do not determine it."
        for index, name in enumerate(form.names)
        if theta[0, index] <= model.lower[index] or theta[0, index] >= model.upper[index]
    ]
    if not minima.converged[0]:
        warnings.append("The search had not settled when it was stopped: do not use these parameters.")
    return CustomFit(
        form=form,
        parameters={name: float(value) for name, value in zip(form.names, values, strict=True)},
        interval={
            name: percentile_interval(column, level, degrees_of_freedom=freedom)
            for name, column in zip(form.names, samples.T, strict=True) if bootstrap
        },
        standard_error={
            name: float(column.std(ddof=1)) for name, column in zip(form.names, samples.T, strict=True) if bootstrap
        },
        noise=float(np.sqrt(residuals @ residuals / freedom)),
        degrees_of_freedom=freedom,
        samples=samples,
        residuals=loss - np.exp(target - residuals),
        warnings=tuple(warnings),
    )  # fmt: skip
