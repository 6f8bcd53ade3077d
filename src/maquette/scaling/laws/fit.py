"""Fitting a loss surface to runs: three forms, three methods, and a bootstrap of all resamples at once.

    fit = fit_surface(params, tokens, loss, bootstrap=1000)
    fit.surface.optimal(1e21), fit.interval["alpha"], fit.predict(70e9, 1.4e12)

Which method? `least_squares` on the loss is the one to use: for the additive form it is variable projection, which
finds the optimum from anywhere. `huber` on the log of the loss, summed, with delta 1e-3 is Hoffmann et al. 2022's,
and `lad` (least absolute deviation of log loss) is what that comes to in the published fit (Besiroglu et al. 2024).
Those objectives are near 1e-3 at the optimum, where minimisers with usual tolerances stop early; here a fit has ended
when no step promises a further 1e-12 of the objective.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from maquette.scaling.laws.forms import FORMS, SurfaceModel, check_form, project_additive, starts, surface_from
from maquette.scaling.laws.gauss_newton import Minima, Projection, minimise
from maquette.scaling.laws.runs import Array, LawError, check_grid, positive_columns
from maquette.scaling.laws.surface import LossSurface
from maquette.statistics import Interval, percentile_interval, resample_counts
from maquette.statistics.resampling import check_resamples

METHODS = ("least_squares", "huber", "lad")
RESAMPLING = ("cases", "residuals")
DEFAULT_DELTA = 1e-3
"""Hoffmann et al. 2022, appendix D.2."""

STARTS, FIRST_STEPS, CARRIED, LAST_STEPS = 24, 30, 6, 2000
"""A fit starts from so many points; after so many steps the best few are carried to the end. That is tens of steps
away, or hundreds where noise-free runs leave the general form's parameters free to trade off."""

NAMES = ("E", "A", "B", "alpha", "beta", "gamma")

# Least absolute deviation is the end of Huber's functions with ever smaller delta, each started from the last.
_LAD_DELTAS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_LAD_RESAMPLE_DELTAS = (1e-3, 1e-4, 1e-5)
_CHUNK = 250_000
"""Points times resamples that step together: what fits the cache."""


class Prediction(NamedTuple):
    """A loss in nats per token, and the interval in which a run is expected to land."""

    loss: float
    interval: Interval


@dataclass(frozen=True)
class SurfaceFit:
    """A fitted surface. Without a bootstrap `interval`, `standard_error` and `samples` are empty.

    `interval`, `standard_error`: by parameter, and `exponent` (of N* in compute). `residuals` (n,): loss less fit,
    in nats. `noise`: standard deviation of a run's log loss about the fit. `samples` (resamples, 6): E, A, B,
    alpha, beta, gamma of each resample. `warnings`: what a reader must know before using the fit.
    """

    surface: LossSurface
    interval: Mapping[str, Interval]
    residuals: Array
    warnings: tuple[str, ...]
    form: str
    method: str
    standard_error: Mapping[str, float]
    noise: float
    degrees_of_freedom: int
    level: float
    samples: Array

    def losses(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """The loss by each resample at each point, (resamples, m)."""
        params, tokens = np.atleast_1d(np.asarray(params, float)), np.atleast_1d(np.asarray(tokens, float))
        floor, first, second, alpha, beta, gamma = (column[:, None] for column in self.samples.T)
        return np.asarray(floor + (first * params**-alpha + second * tokens**-beta) ** gamma)

    def interval_of(self, quantity: Callable[[LossSurface], float], level: float | None = None) -> Interval:
        """The interval of anything computed from a surface: `fit.interval_of(lambda s: s.optimal(1e21).params)`."""
        self._need_samples()
        values = [quantity(surface_from(row)) for row in self.samples]
        return percentile_interval(values, level or self.level, degrees_of_freedom=self.degrees_of_freedom)

    def predict(self, params: float, tokens: float, level: float | None = None) -> Prediction:
        """The loss of one run, with the interval from the law's uncertainty and the scatter of runs about it.

        It trusts the form; `compare_forms(...).predict` also counts how wrong the form has been when extrapolated.
        """
        self._need_samples()
        generator = np.random.default_rng(0)
        scatter = np.exp(self.noise * generator.standard_normal(len(self.samples)))
        losses = self.losses(params, tokens)[:, 0] * scatter
        interval = percentile_interval(losses, level or self.level, degrees_of_freedom=self.degrees_of_freedom)
        return Prediction(self.surface.loss(params, tokens), interval)

    def _need_samples(self) -> None:
        if not len(self.samples):
            raise LawError("This fit has no resamples to make an interval of.", "Fit with bootstrap=1000.")


def fit_surface(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    *,
    form: str = "additive",
    method: str = "least_squares",
    delta: float = DEFAULT_DELTA,
    bootstrap: int = 0,
    seed: int = 0,
    resample: str = "cases",
    level: float = 0.9,
) -> SurfaceFit:
    """Fits E + (A/N^alpha + B/D^beta)^gamma to runs: `params` N, `tokens` D and `loss` (nats per token), (n,) each.

    `form`: additive (gamma = 1, Hoffmann), kaplan (E = 0, beta = 1) or general. `method`: see the top of this file;
    `delta` belongs to huber. `bootstrap`: resamples for intervals of `level`. `resample`: whole runs ("cases"), or
    each run's own residual with a random sign, scaled to what it would be without that run ("residuals": the wild
    bootstrap, Wu 1986; no run is ever left out, and noise may differ from run to run).
    Raises `LawError` for columns that are not finite and positive, for fewer runs than parameters, for too few
    sizes or token counts, and for settings that make no sense together.
    """
    _check_settings(form, method, delta, bootstrap, resample, level)
    sizes, token_counts, losses = positive_columns(params=params, tokens=tokens, loss=loss)
    check_grid(sizes, token_counts, len(FORMS[form]), 2 if form == "kaplan" else 3)
    model = SurfaceModel.over(form, sizes, token_counts, logarithmic=method != "least_squares")
    deltas = {"least_squares": (np.inf,), "huber": (delta,), "lad": _LAD_DELTAS}[method]

    theta = starts(model, losses, deltas[0], STARTS)
    minima = _fit(model, theta, _target(model, losses), None, deltas[:1], 1e-12, iterations=FIRST_STEPS)
    theta = minima.theta[np.argsort(minima.objective)[:CARRIED]]
    minima = _fit(model, theta, _target(model, losses), None, deltas, 1e-12, iterations=LAST_STEPS)
    best = int(np.argmin(minima.objective))
    theta = minima.theta[best : best + 1]
    surface = surface_from(model.parameters(theta)[0])
    fitted = surface.loss(sizes, token_counts)
    residuals, log_residuals = losses - fitted, np.log(losses / fitted)
    freedom = len(losses) - len(model.names)

    samples, converged = np.empty((0, len(NAMES))), 1.0
    if bootstrap:
        again = _LAD_RESAMPLE_DELTAS if method == "lad" else deltas
        samples, converged = _bootstrap(model, theta, losses, again, bootstrap, resample, seed)
    columns = dict(zip(NAMES, samples.T, strict=True))
    columns = {name: columns[name] for name in FORMS[form]}
    columns["exponent"] = samples[:, 4] / (samples[:, 3] + samples[:, 4])
    interval = {
        name: percentile_interval(column, level, degrees_of_freedom=freedom)
        for name, column in columns.items()
        if len(column)
    }
    warnings = [
        *_warnings(model, theta[0], surface, sizes * token_counts, freedom),
        *_scatter_warnings(log_residuals, sizes, token_counts),
    ]
    if not minima.converged[best]:
        warnings.append("The search did not settle: do not use these parameters. Add runs.")
    if converged < 0.99:
        warnings.append(f"{1 - converged:.0%} of the resampled fits did not settle, so intervals are rough. Add runs.")
    return SurfaceFit(
        surface=surface,
        interval=interval,
        residuals=residuals,
        warnings=tuple(warnings),
        form=form,
        method=method,
        standard_error=_standard_errors(columns) if bootstrap else {},
        noise=float(np.sqrt(log_residuals @ log_residuals / max(freedom, 1))),
        degrees_of_freedom=freedom,
        level=level,
        samples=samples,
    )


def _standard_errors(columns: Mapping[str, Array]) -> dict[str, float]:
    # A coefficient whose exponent ran away in one resample has no finite one, which is the truth about it.
    with np.errstate(over="ignore"):
        return {name: float(column.std(ddof=1)) for name, column in columns.items()}


def _check_settings(form: str, method: str, delta: float, bootstrap: int, resample: str, level: float) -> None:
    check_form(form)
    if method not in METHODS:
        raise LawError(f"method={method} is not known.", f"Allowed: {', '.join(METHODS)}.")
    if resample not in RESAMPLING:
        raise LawError(f"resample={resample} is not known.", f"Allowed: {', '.join(RESAMPLING)}.")
    if not delta > 0:
        raise LawError(f"delta={delta:g} makes no Huber function.", "Give a number above 0, in units of log loss.")
    if method != "huber" and delta != DEFAULT_DELTA:
        raise LawError(f"delta={delta:g} has no effect on method={method}.", "Leave it out, or use method=huber.")
    if bootstrap:
        check_resamples(bootstrap, level)


def _target(model: SurfaceModel, losses: Array) -> Array:
    return np.log(losses) if model.logarithmic else losses


def _fit(
    model: SurfaceModel,
    theta: Array,
    target: Array,
    weights: Array | None,
    deltas: tuple[float, ...],
    tolerance: float,
    iterations: int = 300,
) -> Minima:
    """Minimises from every start, through each delta in turn."""
    project: Projection | None = None
    if model.form == "additive" and not model.logarithmic:

        def project(theta: Array, target: Array, weights: Array) -> Array:
            return project_additive(model, theta, target, weights)

    for delta in deltas:
        minima = minimise(
            model, theta, target, weights, delta=delta, project=project, iterations=iterations, tolerance=tolerance
        )
        theta = minima.theta
    return minima


def _bootstrap(
    model: SurfaceModel,
    theta: Array,
    losses: Array,
    deltas: tuple[float, ...],
    resamples: int,
    resample: str,
    seed: int,
) -> tuple[Array, float]:
    """Parameters of each resample (resamples, 6), and the share that settled. Each starts from the fit, `theta`."""
    generator = np.random.default_rng(seed)
    target, weights = _target(model, losses), None
    if resample == "cases":
        weights = resample_counts(len(losses), resamples, generator)
    else:
        prediction, jacobian = model.predict(theta)
        residual = (target - prediction[0]) / (1 - leverage(jacobian[0]))
        target = prediction[0] + residual * generator.choice([-1.0, 1.0], size=(resamples, len(losses)))
    chunk = max(1, _CHUNK // len(losses))
    fitted, settled = [], 0
    for first in range(0, resamples, chunk):
        rows = slice(first, min(first + chunk, resamples))
        count = rows.stop - rows.start
        minima = _fit(
            model,
            np.repeat(theta, count, axis=0),
            target[rows] if target.ndim == 2 else target,
            None if weights is None else weights[rows],
            deltas,
            1e-8,
        )
        fitted.append(minima.theta)
        settled += int(minima.converged.sum())
    return model.parameters(np.concatenate(fitted)), settled / resamples


def leverage(jacobian: Array) -> Array:
    """How far each point pulls its own fit, (n,), from the Jacobian (p, n): the hat matrix's diagonal, below 1."""
    norms = np.linalg.norm(jacobian, axis=1)
    left, singular, _ = np.linalg.svd((jacobian[norms > 0] / norms[norms > 0, None]).T, full_matrices=False)
    left = left[:, singular > 1e-10 * singular.max()]
    return np.minimum(np.sum(left**2, axis=1), 0.99)


def _warnings(model: SurfaceModel, theta: Array, surface: LossSurface, product: Any, freedom: int) -> list[str]:
    """What the fitted parameters themselves say about the fit."""
    messages = []
    if freedom == 0:
        messages.append("There are as many runs as parameters: the fit passes through all of them and has no interval.")
    if product.max() / product.min() < 1.05:
        messages.append("All runs have one compute: how the loss falls with compute is not in these runs.")
    if surface.E == 0 and "E" in model.names:
        messages.append("E came out as 0: these runs show no floor of the loss. Add a larger budget.")
    for index, name in enumerate(model.names):
        if name != "E" and not model.lower[index] * 0.999 < theta[index] < model.upper[index] * 0.999:
            meaning = {"a": "A", "b": "B", "p": "alpha", "q": "beta", "gamma": "gamma"}[name]
            messages.append(f"{meaning} is not determined by these runs. Add sizes or budgets farther apart.")
    return messages


def _scatter_warnings(logs: Array, sizes: Array, token_counts: Array) -> list[str]:
    """Names runs that lie far outside of the others' scatter (more than six robust standard deviations)."""
    scale = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    far = np.flatnonzero(np.abs(logs) > np.maximum(6 * scale, 1e-6))
    if not len(far):
        return []
    worst = far[np.argsort(-np.abs(logs[far]))][:3]
    named = ", ".join(f"N={sizes[i]:.3g} D={token_counts[i]:.3g} ({np.expm1(logs[i]):+.1%})" for i in worst)
    return [f"{len(far)} of {len(logs)} runs lie far outside of the others' scatter: {named}."]
