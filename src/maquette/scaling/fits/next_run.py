"""The next run: which affordable one narrows a prediction most per FLOP.

A fit's covariance is (J' J / s^2)^-1, J the derivatives of log loss by the surface's parameters at the runs and s
their scatter. A further run adds its row to J, so what it does to the variance of a prediction is known before it is
trained: optimal design for one prediction (c-optimality; Atkinson, Donev and Tobias 2007, chapter 10). Runs are
chosen one after another, each given those before it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from maquette.scaling.laws.fit import SurfaceFit
from maquette.scaling.laws.forms import SurfaceModel, coordinates
from maquette.scaling.laws.runs import LawError, positive_columns
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN, Allocation

PRIOR_WIDTH = 10.0
"""A parameter that the runs do not determine at all is known to this (in E's nats or in logarithms)."""


class Suggestion(NamedTuple):
    """A run to train next: `params`, `tokens`, `compute` in FLOPs (6 N D).

    `error_before`, `error_after`: standard error of the target's log loss without and with it (and those before it).
    """

    params: float
    tokens: float
    compute: float
    error_before: float
    error_after: float


def suggest_runs(
    fit: SurfaceFit,
    params: ArrayLike,
    tokens: ArrayLike,
    target: Allocation | tuple[float, float],
    candidates: tuple[ArrayLike, ArrayLike],
    *,
    count: int = 3,
    per_flop: bool = True,
) -> list[Suggestion]:
    """The `count` best next runs for predicting the loss at `target` (N, D), in the order to train them.

    `params`, `tokens` (n,): the runs that `fit` rests on. `candidates`: N and D of the affordable runs, (m,) each;
    one may be chosen again, as another seed. `per_flop`: by variance taken off per FLOP, else by variance taken off.
    Raises `LawError` for `count` below 1 or bad columns.
    """
    if count < 1:
        raise LawError(f"count={count} suggests nothing.", "Ask for 1 or more.")
    sizes, token_counts = positive_columns(params=params, tokens=tokens)
    offered, spans = positive_columns(params=candidates[0], tokens=candidates[1])
    model = SurfaceModel.over(fit.form, sizes, token_counts, logarithmic=True)
    theta = coordinates(model, fit.surface)[None]
    here, there, (aim,) = (
        at.predict(theta)[1][0].T
        for at in (model, model.at(offered, spans), model.at(*np.array(target, float)[:, None]))
    )

    # A fit without scatter (noise-free data) still ranks runs: only ratios matter then.
    variance = fit.noise**2 or 1e-12
    covariance = np.linalg.inv(here.T @ here / variance + np.eye(here.shape[1]) / PRIOR_WIDTH**2)
    compute = FLOPS_PER_PARAMETER_AND_TOKEN * offered * spans
    chosen = []
    for _ in range(count):
        shared = there @ covariance @ aim
        own = np.einsum("mp,pq,mq->m", there, covariance, there)
        gain = shared**2 / (own + variance)
        best = int(np.argmax(gain / compute if per_flop else gain))
        before = float(aim @ covariance @ aim)
        column = covariance @ there[best]
        covariance = covariance - np.outer(column, column) / (own[best] + variance)
        after = max(before - float(gain[best]), 0.0)
        chosen.append(
            Suggestion(
                float(offered[best]),
                float(spans[best]),
                float(compute[best]),
                float(np.sqrt(before)),
                float(np.sqrt(after)),
            )
        )
    return chosen
