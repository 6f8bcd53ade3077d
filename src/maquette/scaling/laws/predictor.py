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
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.scaling.laws.forecast import Forecast, make_forecast
from maquette.scaling.laws.plateau import LEAST_NOISE, PlateauFit, fit_plateau
from maquette.scaling.laws.runs import Array, LawError, group_budgets, positive_columns, seed_noise
from maquette.scaling.laws.size_line import SizeLine, fit_size_line
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN

ALIKE = float(np.log(2))
"""Runs so much farther from N* (in ln N) than the predicted one count half."""

RECENT = 0.7
"""Decades below the nearest run at which a run counts half."""


@dataclass(frozen=True)
class Predictor:
    """Runs (n,) and what was found out about them; `predict` fits the surface to them, weighted for its target.

    `flops_per_product`: compute over N D, typically. `unigram_entropy`: H in nats, infinite where unknown.
    """

    params: Array
    tokens: Array
    loss: Array
    compute: Array
    budgets: Array
    size_line: SizeLine
    flops_per_product: float
    unigram_entropy: float
    least_noise: float
    warnings: tuple[str, ...]

    def predict(
        self,
        params: ArrayLike,
        tokens: ArrayLike,
        compute: ArrayLike | None = None,
        levels: Sequence[float] = (0.5, 0.9),
    ) -> Forecast:
        """The loss of runs of `params` N trained on `tokens` D, with intervals of `levels`; numbers or arrays that
        broadcast. `compute` in FLOPs as those of the fit are counted (default: in proportion to N D)."""
        sizes, spans = (np.asarray(values, float) for values in (params, tokens))
        flops = self.flops_per_product * sizes * spans if compute is None else np.asarray(compute, float)
        sizes, spans, flops = np.broadcast_arrays(sizes, spans, flops)
        shape = sizes.shape
        for name, values in (("params", sizes), ("tokens", spans), ("compute", flops)):
            if not np.all(np.isfinite(values) & (values > 0)):
                raise LawError(f"{name} of a run to predict must be finite and above 0.")
        columns = sizes.ravel(), spans.ravel(), flops.ravel()
        weights, decades = self._weights(*columns)
        fit, rows = self._fits(weights)
        log_loss, deviation, slope = np.empty((3, len(rows)))
        # Compute rises by half of it in N and half in D, nearly as along the line of best sizes.
        step = 0.05
        for row in np.unique(rows):
            here = np.flatnonzero(rows == row)
            at = columns[0][here], columns[1][here]
            log_loss[here], law = fit.log_loss(*at, row)
            deviation[here] = np.hypot(law, fit.noise[row])
            beyond, _ = fit.log_loss(at[0] * np.exp(step / 2), at[1] * np.exp(step / 2), row)
            slope[here] = (beyond - log_loss[here]) / step
        log_loss, deviation, decades, slope = (one.reshape(shape) for one in (log_loss, deviation, decades, slope))
        return make_forecast(log_loss, deviation, decades, slope, levels, self.warnings)

    def best_size(self, compute: Any, level: float = 0.9) -> tuple[Any, tuple[Any, Any]]:
        """N* at `compute` FLOPs, and the interval in which it lies: from the shrunk line of minima, whatever the loss
        is predicted with. `size_line.warnings` say where the runs have no minima."""
        middle, (low, high) = self.size_line.best_size(compute, level)
        if np.ndim(compute) == 0:
            return float(middle), (float(low), float(high))
        return middle, (low, high)

    def _weights(self, params: Array, tokens: Array, compute: Array) -> tuple[Array, Array]:
        """Weights (m, n) of the runs for each target, and how many decades each target lies beyond the runs (m,)."""
        off = np.log(self.params) - self.size_line.log_params(self.compute)
        target = np.log(params) - self.size_line.log_params(compute)
        target = np.clip(target, *np.quantile(off, [0.1, 0.9]))
        alike = 1 / (1 + (np.abs(off - target[:, None]) / ALIKE) ** 4)
        in_params, in_tokens = np.log10(params[:, None] / self.params), np.log10(tokens[:, None] / self.tokens)
        below = np.maximum(0.0, in_params) + np.maximum(0.0, in_tokens)
        decades = below.min(axis=1)
        return alike / (1 + ((below - decades[:, None]) / RECENT) ** 2), decades

    def _fits(self, weights: Array) -> tuple[PlateauFit, NDArray[np.intp]]:
        """One fit for each distinct row of weights, and which of them each target has."""
        # Targets whose weights agree to two digits share a fit.
        distinct, rows = np.unique(np.round(weights, 2), axis=0, return_inverse=True)
        fit = fit_plateau(self.params, self.tokens, self.loss, distinct, self.unigram_entropy, self.least_noise)
        return fit, rows.ravel()


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
    `copying`: each run's copying score. `seeds`: of the runs, so that repeats show their noise. Raises `LawError` for
    bad columns and for fewer than four runs.
    """
    sizes, spans, losses = positive_columns(params=params, tokens=tokens, loss=loss)
    if len(sizes) < 4:
        raise LawError(f"{len(sizes)} runs are too few to predict from.", "Four at the least, at two budgets or more.")
    flops = (
        FLOPS_PER_PARAMETER_AND_TOKEN * sizes * spans
        if compute is None
        else positive_columns(compute=compute, loss=losses)[0]
    )
    budget = group_budgets(flops) if budgets is None else positive_columns(budgets=budgets, loss=losses)[0]
    entropy = np.inf if unigram_entropy is None else float(unigram_entropy)
    pooled, repeats = seed_noise(sizes, spans, losses, seeds)
    least_noise = max(LEAST_NOISE, pooled) if repeats else LEAST_NOISE
    flops_per_product = float(np.exp(np.mean(np.log(flops / (sizes * spans)))))

    def surface_minimum(at: float) -> float:
        fit = fit_plateau(sizes, spans, losses, np.ones((1, len(sizes))), entropy, least_noise)
        product = at / flops_per_product
        grid = np.geomspace(sizes.min() / 10, sizes.max() * 10, 400)
        return float(grid[np.argmin(fit.log_loss(grid, product / grid, 0)[0])])

    line = fit_size_line(sizes, losses, flops, budget, surface_minimum)
    return Predictor(sizes, spans, losses, flops, budget, line, flops_per_product, entropy, least_noise, line.warnings)
