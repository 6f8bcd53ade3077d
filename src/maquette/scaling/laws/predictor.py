"""The predictor: from runs to the loss of a larger one, with an interval.

    predictor = fit_predictor(params, tokens, loss, budgets=budgets, unigram_entropy=6.1)
    predictor.best_size(1e15), predictor.predict(3e6, 6e7)

1. `size_line.py`: the best size N*(C), a line through the minima shrunk towards published exponents.
2. `plateau.py`: a surface L(N, D), fitted with priors and with weights that follow the run to be predicted.
3. `forecast.py`: the interval, from the surface's own uncertainty and from how far the run lies beyond the others.

A run counts by how alike it is to the one that is predicted, in what N and D have to do with each other and in scale:

    w = 1 / (1 + (|r - r'| / ln 2)^4) x 1 / (1 + (d / .7)^2),   r = ln N - ln N*(C)

r and r' say how far the run and the predicted one are from the best size for their compute: an overtrained model is
predicted from overtrained ones, the best of a budget from the best. So one predictor serves IsoFLOP grids and ladders
of sizes and token multiples. d is how many decades a run lies below the predicted one, less those of the nearest run.

The interval's width rests on how wrong the predictor was when it predicted these runs' larger budgets from the smaller
ones. A form of law of one's own (`forms`) is tested likewise; where it did better, it predicts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from maquette.scaling.laws.custom_form import custom_form
from maquette.scaling.laws.extrapolation import ENOUGH_BUDGETS, SIMPLER_WITHIN
from maquette.scaling.laws.fitted_form import FittedForm, fit_form
from maquette.scaling.laws.forecast import FREEDOM, Extrapolated, Forecast, extrapolate, make_forecast
from maquette.scaling.laws.forms import surface_from
from maquette.scaling.laws.plateau import GENERAL, LEAST_NOISE, PlateauFit, fit_plateau
from maquette.scaling.laws.regimes import Onset, copying_onset
from maquette.scaling.laws.rolling_origin import LawScore, rolling_origin, scores, width
from maquette.scaling.laws.runs import Array, LawError, Runs, check_runs, seed_noise
from maquette.scaling.laws.size_line import SizeLine, fit_size_line
from maquette.scaling.laws.surface import LossSurface

SURFACE = "plateau"

FEWEST = 4

ALIKE = float(np.log(2))
"""Runs so much farther from N* (in ln N) than the predicted one count half."""

RECENT = 0.7
"""Decades below the nearest run at which a run counts half."""


@dataclass(frozen=True)
class WeightedSurface:
    """The surface over `runs`, fitted again for each target with its own weights. `flops_per_product`: compute over
    N D, typically; `unigram_entropy`: H in nats, infinite where unknown; `least_noise`: of a run's ln L."""

    runs: Runs
    size_line: SizeLine
    flops_per_product: float
    unigram_entropy: float
    least_noise: float

    def extrapolate(self, params: Array, tokens: Array, compute: Array) -> Extrapolated:
        """What it says of runs (m,)."""
        # Targets whose weights agree to two digits share a fit.
        distinct, which = np.unique(np.round(self.weights(params, tokens, compute), 2), axis=0, return_inverse=True)
        fit = fit_plateau(
            self.runs.params, self.runs.tokens, self.runs.loss, distinct, self.unigram_entropy, self.least_noise
        )
        parts = np.empty((len(Extrapolated._fields), len(params)))
        for row in range(len(distinct)):
            here = np.flatnonzero(which.ravel() == row)
            at = params[here], tokens[here], compute[here]
            deviation = np.hypot(fit.log_loss(at[0], at[1], row)[1], fit.noise[row])
            parts[:, here] = extrapolate(partial(_by_fit, fit, row), deviation, self.runs, *at)
        return Extrapolated(*parts)

    def weights(self, params: Array, tokens: Array, compute: Array) -> Array:
        """How much each run counts for each target, (m, n)."""
        runs = self.runs
        off = np.log(runs.params) - self.size_line.log_params(runs.compute)
        target = np.log(params) - self.size_line.log_params(compute)
        # Beyond what was tried the nearest runs count; steps of a tenth let targets share their fits.
        least, greatest = np.quantile(off, [0.1, 0.9])
        target = np.asarray(np.round(np.clip(target, least, greatest), 1), float)
        below = runs.decades_below(params, tokens)
        recent = 1 / (1 + ((below - below.min(axis=1, keepdims=True)) / RECENT) ** 2)
        return np.asarray(recent / (1 + (np.abs(off - target[:, None]) / ALIKE) ** 4))


def _by_fit(fit: PlateauFit, row: int, params: Array, tokens: Array, _: Array) -> Array:
    return fit.log_loss(params, tokens, row)[0]


@dataclass(frozen=True)
class Predictor:
    """What predicts. `surface`: the weighted surface over the runs. `forms`: one's own, fitted. `form`: the name of the
    law that predicts, "plateau" (the surface) or one of `forms`; `widths`: of the intervals, by name; `scores`: how
    they predicted larger budgets; `onset`: how much lower the loss may come out when copying sets in."""

    surface: WeightedSurface
    forms: Mapping[str, FittedForm]
    form: str
    widths: Mapping[str, float]
    onset: Onset
    scores: tuple[LawScore, ...]
    warnings: tuple[str, ...]

    def predict(
        self,
        params: ArrayLike,
        tokens: ArrayLike,
        compute: ArrayLike | None = None,
        levels: Sequence[float] = (0.5, 0.9),
        *,
        form: str | None = None,
    ) -> Forecast:
        """The loss of runs of `params` N trained on `tokens` D, with intervals of `levels`; numbers or arrays that
        broadcast. `compute` in FLOPs as those of the fit are counted (default: in proportion to N D). `form` forces
        the surface or one of the forms, which says what it says where nobody forced it."""
        name = form or self.form
        laws: dict[str, WeightedSurface | FittedForm] = {SURFACE: self.surface, **self.forms}
        if name not in laws:
            raise LawError(f"form={name} was not fitted to these runs.", f"Fitted: {', '.join(laws)}.")
        product = np.asarray(params, float) * np.asarray(tokens, float)
        flops = self.surface.flops_per_product * product if compute is None else compute
        return make_forecast(
            laws[name].extrapolate, params, tokens, flops, width=self.widths[name], levels=levels,
            warnings=self.warnings, below=self.onset.below,
        )  # fmt: skip

    def best_size(self, compute: Any, level: float = 0.9) -> tuple[Any, tuple[Any, Any]]:
        """N* at `compute` FLOPs, and the interval in which it lies: from the shrunk line of minima, whatever the loss
        is predicted with. `size_line.warnings` say where the runs have no minima."""
        middle, (low, high) = self.size_line.best_size(compute, level)
        if np.ndim(compute) == 0:
            return float(middle), (float(low), float(high))
        return middle, (low, high)

    def planning_surface(self, count: int = 2000, seed: int = 0) -> tuple[LossSurface, Array]:
        """E + (A/N^alpha + B/D^beta)^gamma whose best sizes are those of the size line, and whose least losses are the
        predicted ones at the largest budget and a hundred times it; and `count` such surfaces within the intervals,
        (count, 6): E, A, B, alpha, beta, gamma.

        Along the best sizes both terms are powers of C with one exponent k: with N* ~ C^a, alpha = k / a, beta =
        k / (1 - a), and the terms stand a to 1 - a (Hoffmann et al. 2022, equation 4, read backwards). C is 6 N D.
        """
        line, largest = self.size_line, float(self.runs.budget.max())
        compute = largest * np.array([1.0, 100.0])
        product = compute / self.surface.flops_per_product
        best = np.exp(line.log_params(compute))
        forecast = self.predict(best, product / best, compute)
        fit = fit_plateau(
            self.runs.params, self.runs.tokens, self.runs.loss,
            self.surface.weights(best[:1], product[:1] / best[:1], compute[:1]),
        )  # fmt: skip
        floor, gamma = fit.model.general.parameters(fit.theta[:, :GENERAL])[0, [0, 5]]
        draws = np.random.default_rng(seed).standard_t(8, (count + 1, 3)) * (np.arange(count + 1) > 0)[:, None]
        scale = np.log(forecast.intervals[0.5][1] / forecast.loss) / t.ppf(0.75, FREEDOM)
        losses = forecast.loss * np.exp(draws[:, :1] * scale)
        floors = np.minimum(floor * losses[:, 1] / forecast.loss[1], 0.95 * losses[:, 1])
        exponent = np.clip(line.exponent + draws[:, 1] * line.exponent_deviation, 0.05, 0.95)
        level = line.level + draws[:, 2] * line.deviation(np.exp(line.centre))
        reducible = (losses - floors[:, None]) ** (1 / gamma)
        k = np.maximum(np.log(reducible[:, 0] / reducible[:, 1]) / np.log(100.0), 1e-3)
        alpha, beta = k / exponent, k / (1 - exponent)
        log_best = level + exponent * (np.log(compute[0]) - line.centre)
        first = reducible[:, 0] * exponent * np.exp(alpha * log_best)
        second = reducible[:, 0] * (1 - exponent) * np.exp(beta * (np.log(product[0]) - log_best))
        rows = np.stack([floors, first, second, alpha, beta, np.full(count + 1, gamma)], axis=1)
        return surface_from(rows[0]), rows[1:]

    @property
    def size_line(self) -> SizeLine:
        return self.surface.size_line

    @property
    def runs(self) -> Runs:
        """The runs that it rests on."""
        return self.surface.runs


def fit_predictor(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    compute: ArrayLike | None = None,
    *,
    budgets: ArrayLike | None = None,
    unigram_entropy: float | None = None,
    copying: ArrayLike | None = None,
    seeds: ArrayLike | None = None,
    forms: Sequence[Any] | None = None,
) -> Predictor:
    """A predictor from runs: `params` N, `tokens` D, `loss` in nats per token, (n,) each.

    `compute`: FLOPs of each run (default 6 N D). `budgets`: of each run, the same number for all runs of one curve
    (default: runs of nearly equal compute). `unigram_entropy`: of the text under its tokenizer, nats per token.
    `copying`: each run's copying score; before copying sets in, intervals reach lower. `seeds`: of the runs, so that
    repeats show their noise. `forms`: of one's own, as for `compare_forms`. Raises `LawError` for bad columns and for
    fewer than four runs.
    """
    runs = check_runs(params, tokens, loss, compute, budgets)
    if len(runs.loss) < FEWEST:
        raise LawError(f"{len(runs.loss)} runs are too few to predict from.", f"{FEWEST} at the least, of two budgets.")
    pooled, repeats = seed_noise(runs.params, runs.tokens, runs.loss, seeds)
    entropy, least_noise = unigram_entropy or np.inf, max(LEAST_NOISE, pooled) if repeats else LEAST_NOISE
    fit = partial(weighted_surface, entropy=float(entropy), least_noise=least_noise)
    surface, held_out = fit(runs), {SURFACE: rolling_origin(fit, runs)}
    fitted = {}
    for own in [custom_form(form) for form in forms or ()]:
        fitted[own.name] = fit_form(own, runs)
        held_out[own.name] = rolling_origin(partial(fit_form, own), runs)
    onset, warnings = copying_onset(copying, runs)
    table = tuple(row for name, rows in held_out.items() for row in scores(name, rows, 0.9))
    return Predictor(
        surface=surface,
        forms=fitted,
        form=_headline(table, len(np.unique(runs.budget))),
        widths={name: width(rows) for name, rows in held_out.items()},
        onset=onset,
        scores=table,
        warnings=(*surface.size_line.warnings, *warnings),
    )


def weighted_surface(runs: Runs, *, entropy: float = np.inf, least_noise: float = LEAST_NOISE) -> WeightedSurface:
    """The surface over runs, with the line of best sizes that its weights rest on; `entropy`: H."""
    per_product = float(np.exp(np.mean(np.log(runs.compute / (runs.params * runs.tokens)))))

    def surface_minimum(at: float) -> float:
        every = np.ones((1, len(runs.loss)))
        fit = fit_plateau(runs.params, runs.tokens, runs.loss, every, entropy, least_noise)
        product = at / per_product
        grid = np.geomspace(runs.params.min() / 10, runs.params.max() * 10, 400)
        return float(grid[np.argmin(fit.log_loss(grid, product / grid, 0)[0])])

    return WeightedSurface(runs, fit_size_line(runs, surface_minimum), per_product, entropy, least_noise)


def _headline(table: Sequence[LawScore], budgets: int) -> str:
    """The law that predicts: a form of one's own where it clearly did better than the surface, and enough was held out
    to tell."""
    names = {row.form for row in table}
    means = {name: float(np.mean([row.score for row in table if row.form == name])) for name in names}
    if budgets < ENOUGH_BUDGETS or SURFACE not in means:
        return SURFACE
    best = min(means, key=lambda name: means[name])
    return best if means[best] * SIMPLER_WITHIN < means[SURFACE] else SURFACE
