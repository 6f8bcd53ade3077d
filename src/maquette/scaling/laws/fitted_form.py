"""One form of law fitted to one table of runs, as a predictor of log loss with its own uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maquette.scaling.errors import LawError
from maquette.scaling.laws.custom_form import CustomFit, CustomForm, fit_custom
from maquette.scaling.laws.fit import SurfaceFit, fit_surface
from maquette.scaling.laws.gauss_newton import Array
from maquette.scaling.laws.isoflop import IsoflopFit, fit_isoflop
from maquette.scaling.laws.minima_law import minima_law, minima_spread

COMPLEXITY = ("minima", "kaplan", "additive", "general")
"""The forms that are compared, from the one that assumes least about how N and D combine to the richest."""

_PARAMETERS = {"minima": 0, "kaplan": 4, "additive": 5, "general": 6}

NEAR = 4.0
"""Laws are judged by runs within this factor, in N, of the best run of a budget: where they will be used."""


@dataclass(frozen=True)
class Runs:
    """Checked columns (n,), and each run's budget."""

    params: Array
    tokens: Array
    loss: Array
    compute: Array
    budget: Array

    def take(self, rows: NDArray[np.bool_]) -> "Runs":
        """The runs for which `rows` (n,) is true."""
        return Runs(self.params[rows], self.tokens[rows], self.loss[rows], self.compute[rows], self.budget[rows])

    def near_best(self, budget: float) -> NDArray[np.bool_]:
        """Which runs of a budget are near its best one in N, (n,)."""
        here = np.isclose(self.budget, budget, rtol=1e-9)
        best = self.params[here][np.argmin(self.loss[here])]
        return np.asarray(here & (np.abs(np.log(self.params / best)) <= np.log(NEAR) + 1e-9))


@dataclass(frozen=True)
class FittedForm:
    """A form fitted to runs: exactly one of `surface`, `isoflop` and `custom` is there.

    `noise`: standard deviation of a run's log loss about the law.
    """

    name: str
    surface: SurfaceFit | None
    isoflop: IsoflopFit | None
    noise: float
    degrees_of_freedom: int
    warnings: tuple[str, ...]
    custom: CustomFit | None = None

    def log_loss(self, params: Array, tokens: Array, compute: Array) -> Array:
        """Predicted ln L of runs (m,)."""
        if self.surface is not None:
            return np.log(self.surface.surface.loss(params, tokens))
        if self.custom is not None:
            return self.custom.log_loss(params, tokens)
        assert self.isoflop is not None
        return minima_law(self.isoflop).log_loss(params, compute)

    def spread(self, params: Array, tokens: Array, compute: Array) -> Array:
        """Standard deviation of the predicted ln L, (m,), from the law's own uncertainty."""
        if self.surface is not None:
            # Half the width of the middle 68%: a resample that ran away must not set the scale.
            low, high = np.quantile(np.log(self.surface.losses(params, tokens)), [0.1587, 0.8413], axis=0)
            return np.asarray((high - low) / 2)
        if self.custom is not None:
            low, high = np.nanquantile(self.custom.log_losses(params, tokens), [0.1587, 0.8413], axis=0)
            return np.asarray((high - low) / 2)
        assert self.isoflop is not None
        return minima_spread(self.isoflop, params, compute)


def by_complexity(custom: Sequence[CustomForm]) -> dict[str, str | CustomForm]:
    """All forms by name, from the simplest to the richest: a user's stands after ours of as many parameters."""
    forms: dict[str, str | CustomForm] = {name: name for name in COMPLEXITY}
    for form in custom:
        if form.name in forms:
            raise LawError(f"Two forms are called {form.name}.", f"Give {form.target} another `name`.")
        forms[form.name] = form

    def parameters(name: str) -> int:
        form = forms[name]
        return _PARAMETERS[form] if isinstance(form, str) else len(form.names)

    return {name: forms[name] for name in sorted(forms, key=parameters)}


def fit_form(form: str | CustomForm, runs: Runs, bootstrap: int, seed: int) -> FittedForm | str:
    """Fits the form, or says in words why these runs do not allow it."""
    try:
        if isinstance(form, CustomForm):
            custom = fit_custom(form, runs.params, runs.tokens, runs.loss, bootstrap=bootstrap, seed=seed)
            return FittedForm(
                form.name, None, None, custom.noise, custom.degrees_of_freedom, custom.warnings, custom=custom
            )
        name = form
        if name == "minima":
            return _fit_minima(runs)
        fit = fit_surface(runs.params, runs.tokens, runs.loss, form=name, bootstrap=bootstrap, seed=seed)
        if fit.degrees_of_freedom < 1:
            return "there are as many runs as parameters."
        return FittedForm(name, fit, None, fit.noise, fit.degrees_of_freedom, fit.warnings)
    except LawError as error:
        return error.message


def _fit_minima(runs: Runs) -> FittedForm | str:
    fit = fit_isoflop(runs.params, runs.tokens, runs.loss, runs.budget)
    freedom = len(fit.optima) - 2
    if freedom < 1:
        return "it needs three budgets with a minimum inside of their grid."
    near = np.any([runs.near_best(optimum.budget) for optimum in fit.optima], axis=0)
    judged = runs.take(near)
    residual = np.log(judged.loss) - minima_law(fit).log_loss(judged.params, judged.compute)
    # Each budget's curve took three numbers from its runs.
    noise = float(np.sqrt(residual @ residual / max(len(residual) - 3 * len(fit.optima), 1)))
    return FittedForm("minima", None, fit, noise, freedom, fit.warnings)
