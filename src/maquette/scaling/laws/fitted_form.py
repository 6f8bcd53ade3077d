"""One form of law fitted to one table of runs, as a predictor of log loss with its own uncertainty.

The forms are the three of forms.py, a user's, and *minima*, the law of the IsoFLOP minima: a power law in compute, and
what a wrong size costs,

    ln L(N, D, C) = ln L*(C) + k/2 (ln N - ln N*(C))^2

L* and N* are the power laws through the minima and k is the mean curvature of the curves. It assumes nothing about how
N and D combine, which made it the safest law to extrapolate from few budgets (and it says nothing about runs far from
the best size).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from maquette.scaling.laws.custom_form import CustomFit, CustomForm, CustomModel, custom_form, fit_custom
from maquette.scaling.laws.farseer import Farseer
from maquette.scaling.laws.fit import SurfaceFit, fit_surface
from maquette.scaling.laws.forecast import Extrapolated, extrapolate
from maquette.scaling.laws.forms import SurfaceModel, coordinates
from maquette.scaling.laws.gauss_newton import covariance
from maquette.scaling.laws.isoflop import IsoflopFit, fit_isoflop
from maquette.scaling.laws.power_law import PowerLaw, PowerLawFit
from maquette.scaling.laws.runs import Array, LawError, Runs

COMPLEXITY = ("minima", "kaplan", "additive", "general")
"""The forms that are compared, from the one that assumes least about how N and D combine to the richest."""

_PARAMETERS = {"minima": 0, "kaplan": 4, "additive": 5, "general": 6}


@dataclass(frozen=True)
class MinimaLaw:
    """`best_loss` L*(C), `best_params` N*(C), and `curvature` k of log loss over ln N."""

    best_loss: PowerLaw
    best_params: PowerLaw
    curvature: float

    def log_loss(self, params: ArrayLike, compute: ArrayLike) -> Array:
        """ln L of runs of `params` N trained with `compute` C, in the convention of the fit."""
        distance = np.log(np.asarray(params, float)) - np.log(self.best_params.value(compute))
        return np.asarray(np.log(self.best_loss.value(compute)) + 0.5 * self.curvature * distance**2)


def minima_law(fit: IsoflopFit) -> MinimaLaw:
    """The law of an IsoFLOP fit's minima."""
    return MinimaLaw(fit.loss_law.law, fit.params_law.law, float(np.mean([o.curvature for o in fit.optima])))


def minima_spread(fit: IsoflopFit, params: Array, compute: Array) -> Array:
    """Standard deviation of the law's ln L at runs (m,), from the scatter of the minima about their lines."""
    law = minima_law(fit)
    curvatures = np.array([o.curvature for o in fit.optima])
    distance = np.log(params) - np.log(law.best_params.value(compute))
    loss_error = _line_errors(fit.loss_law, compute)
    params_error = law.curvature * distance * _line_errors(fit.params_law, compute)
    curvature_error = 0.5 * distance**2 * curvatures.std(ddof=1) / np.sqrt(len(curvatures))
    return np.asarray(np.sqrt(loss_error**2 + params_error**2 + curvature_error**2))


def _line_errors(fit: PowerLawFit, x: Array) -> Array:
    return np.array([fit.standard_error(value) for value in x])


@dataclass(frozen=True)
class MinimaBend:
    """Whether the line through the minima is one: `bend` is the second derivative of ln L* over log10 C; over
    ln 10 it is the change of the slope d ln L* / d ln C per decade of compute."""

    bend: float
    p_value: float
    words: str


def minima_curvature(fit: IsoflopFit, level: float = 0.9) -> MinimaBend:
    """Tests the quadratic term of ln L* over ln C by Student's t, and says the result in words.

    Four minima at the least; with fewer `bend` is nan.
    """
    budgets, losses = np.array([[o.budget, o.loss] for o in fit.optima]).T
    freedom = len(budgets) - 3
    if freedom < 1:
        return MinimaBend(np.nan, np.nan, f"{len(budgets)} minima are too few to tell whether their line bends.")
    decades = np.log10(budgets) - np.log10(budgets).mean()
    basis = np.stack([np.ones_like(decades), decades, decades**2], axis=1)
    coefficients, *_ = np.linalg.lstsq(basis, np.log(losses), rcond=None)
    residual = np.log(losses) - basis @ coefficients
    variance = float(residual @ residual) / freedom * np.linalg.inv(basis.T @ basis)[2, 2]
    bend = float(2 * coefficients[2])
    # Rounding alone leaves residuals near 1e-16; against those any bend would be significant.
    error = float(np.sqrt(variance + 1e-24))
    p_value = float(2 * t.sf(abs(coefficients[2]) / error, freedom))
    per_decade = f"its slope changes by {bend / np.log(10):+.3f} per decade of compute (p = {p_value:.2g})"
    if p_value > 1 - level or abs(bend) < 1e-6:
        words = (
            f"The line through the {len(budgets)} minima does not bend more than their scatter explains: {per_decade}."
        )
    elif bend < 0:
        words = (
            f"The line through the minima bends down: {per_decade}. The loss falls ever faster, as where text repeats "
            "itself or where the larger runs do something that the smaller ones can't (a change of regime). "
            "A law of the smaller runs will promise too little."
        )
    else:
        words = (
            f"The line through the minima bends up: {per_decade}. The loss falls ever slower, as near a floor or "
            "where the larger runs had too little data. A power law will promise too much."
        )
    return MinimaBend(bend, p_value, words)


@dataclass(frozen=True)
class FittedForm:
    """A form fitted to runs: exactly one of `surface`, `isoflop` and `custom` is there.

    `runs`: those that it was fitted to. `noise`: standard deviation of a run's log loss about the law; `kind_noise`: of
    its kind.
    """

    name: str
    runs: Runs
    surface: SurfaceFit | None
    isoflop: IsoflopFit | None
    noise: float
    degrees_of_freedom: int
    warnings: tuple[str, ...]
    custom: CustomFit | None = None
    kind_noise: float = 0.0

    def log_loss(self, params: Array, tokens: Array, compute: Array) -> Array:
        """Predicted ln L of runs (m,)."""
        if self.surface is not None:
            return np.log(self.surface.surface.loss(params, tokens))
        if self.custom is not None:
            return self.custom.log_loss(params, tokens)
        assert self.isoflop is not None
        return minima_law(self.isoflop).log_loss(params, compute)

    def deviation(self, params: Array, tokens: Array, compute: Array) -> Array:
        """Standard deviation of a run's ln L about the prediction, (m,): the law's own uncertainty, and the noise."""
        noise = np.hypot(self.noise, self.kind_noise)
        if self.isoflop is not None:
            return np.hypot(minima_spread(self.isoflop, params, compute), noise)
        if self.surface is not None:
            name, surface = self.surface.form, self.surface.surface
            here = SurfaceModel.over(name, self.runs.params, self.runs.tokens, logarithmic=True)
            theta, there = coordinates(here, surface)[None], here.at(params, tokens)
            slopes = here.predict(theta)[1][0], there.predict(theta)[1][0]
        else:
            assert self.custom is not None
            own, values = self.custom.form, np.array(list(self.custom.parameters.values()))
            model = CustomModel(own, self.runs.params, self.runs.tokens)
            theta = model.coordinates(values)[None]
            slopes = model.predict(theta)[1][0], CustomModel(own, params, tokens).predict(theta)[1][0]
        law = np.einsum("pm,pq,qm->m", slopes[1], covariance(slopes[0], self.noise), slopes[1])
        return np.sqrt(np.maximum(law, 0.0) + noise**2)

    def extrapolate(self, params: Array, tokens: Array, compute: Array) -> Extrapolated:
        """What it says of runs (m,)."""
        return extrapolate(self.log_loss, self.deviation(params, tokens, compute), self.runs, params, tokens, compute)


def by_complexity(custom: Sequence[CustomForm]) -> dict[str, str | CustomForm]:
    """All forms by name, from the simplest to the richest: a user's stands after ours of as many parameters."""
    forms: dict[str, str | CustomForm] = {name: name for name in COMPLEXITY}
    forms[Farseer.name] = custom_form(Farseer)
    for form in custom:
        if form.name in forms:
            raise LawError(f"Two forms are called {form.name}.", f"Give {form.target} another `name`.")
        forms[form.name] = form

    def parameters(name: str) -> int:
        form = forms[name]
        return _PARAMETERS[form] if isinstance(form, str) else len(form.names)

    return {name: forms[name] for name in sorted(forms, key=parameters)}


def fit_form(form: str | CustomForm, runs: Runs, bootstrap: int = 0, seed: int = 0) -> FittedForm:
    """Fits the form. Raises `LawError`, saying why, where these runs do not allow it."""
    if isinstance(form, CustomForm):
        own = fit_custom(form, runs.params, runs.tokens, runs.loss, bootstrap=bootstrap, seed=seed)
        return FittedForm(form.name, runs, None, None, own.noise, own.degrees_of_freedom, own.warnings, custom=own)
    if form == "minima":
        return _fit_minima(runs)
    fit = fit_surface(runs.params, runs.tokens, runs.loss, form=form, bootstrap=bootstrap, seed=seed)
    if fit.degrees_of_freedom < 1:
        raise LawError("there are as many runs as parameters.")
    return FittedForm(form, runs, fit, None, fit.noise, fit.degrees_of_freedom, fit.warnings)


def _fit_minima(runs: Runs) -> FittedForm:
    fit = fit_isoflop(runs.params, runs.tokens, runs.loss, runs.budget)
    freedom = len(fit.optima) - 2
    if freedom < 1:
        raise LawError("it needs three budgets with a minimum inside of their grid.")
    near = np.any([runs.near_best(optimum.budget) for optimum in fit.optima], axis=0)
    judged = runs.take(near)
    residual = np.log(judged.loss) - minima_law(fit).log_loss(judged.params, judged.compute)
    # Each budget's curve took three numbers from its runs.
    noise = float(np.sqrt(residual @ residual / max(len(residual) - 3 * len(fit.optima), 1)))
    return FittedForm("minima", runs, None, fit, noise, freedom, fit.warnings)
