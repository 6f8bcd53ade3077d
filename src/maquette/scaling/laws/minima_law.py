"""The law of the minima as a predictor of any run: a power law in compute, and what a wrong size costs.

    ln L(N, D, C) = ln L*(C) + k/2 (ln N - ln N*(C))^2

L* and N* are the power laws through the IsoFLOP minima and k is the mean curvature of the curves. It assumes nothing
about how N and D combine, which made it the safest law to extrapolate from few budgets (and it says nothing about
runs far from the best size).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from maquette.scaling.laws.gauss_newton import Array
from maquette.scaling.laws.isoflop import IsoflopFit
from maquette.scaling.laws.power_law import PowerLaw, PowerLawFit


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
class Curvature:
    """Whether the line through the minima is one: `bend` is the change of its slope per decade of compute."""

    bend: float
    p_value: float
    words: str


def minima_curvature(fit: IsoflopFit, level: float = 0.9) -> Curvature:
    """Tests the quadratic term of ln L* over ln C by Student's t, and says the result in words.

    Four minima at the least; with fewer `bend` is nan.
    """
    budgets, losses = np.array([[o.budget, o.loss] for o in fit.optima]).T
    freedom = len(budgets) - 3
    if freedom < 1:
        return Curvature(np.nan, np.nan, f"{len(budgets)} minima are too few to tell whether their line bends.")
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
    return Curvature(bend, p_value, words)
