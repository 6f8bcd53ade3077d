"""The next run: which affordable one narrows a prediction most per FLOP.

A fit's covariance is (J' J / s^2)^-1, J the derivatives of log loss by the surface's parameters at the runs and s
their scatter. A further run adds its row to J, so what it does to the variance of a prediction is known before it is
trained: optimal design for one prediction (c-optimality; Atkinson, Donev and Tobias 2007, chapter 10). Runs are
chosen one after another, each given those before it.
"""

import itertools
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console

from maquette.artifacts.settings import parse_quantity
from maquette.reports import quantity, terminal_table
from maquette.scaling.laws.fit import SurfaceFit
from maquette.scaling.laws.forms import SurfaceModel, coordinates
from maquette.scaling.laws.gauss_newton import covariance
from maquette.scaling.laws.runs import Array, LawError, positive_columns
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN, Allocation

if TYPE_CHECKING:
    from maquette.scaling.fits.sweep_fit import SweepFit

_SIZES = 17
"""Of candidates, evenly in their logarithm."""

_REACH = 10
"""The run whose loss is to be known has so many times the largest budget, unless another is named."""


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

    known, variance = covariance(here.T, fit.noise), fit.noise**2 or 1e-12
    compute = FLOPS_PER_PARAMETER_AND_TOKEN * offered * spans
    chosen = []
    for _ in range(count):
        shared = there @ known @ aim
        own = np.einsum("mp,pq,mq->m", there, known, there)
        gain = shared**2 / (own + variance)
        best = int(np.argmax(gain / compute if per_flop else gain))
        before = float(aim @ known @ aim)
        column = known @ there[best]
        known = known - np.outer(column, column) / (own[best] + variance)
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


def candidates(fit: "SweepFit", affordable: float) -> tuple[Array, Array]:
    """N and D of the runs one could train: sizes of the family and a little beyond, budgets half a decade apart, and
    tokens per parameter not far outside of what was tried."""
    table = fit.table
    sizes = np.geomspace(table.params.min() / 1.5, table.params.max() * 3, _SIZES)
    steps = max(0, int(np.floor(2 * np.log10(affordable / table.budget.min()) + 1e-9)))
    budgets = np.unique([*(affordable / 10 ** (np.arange(steps + 1) / 2)), affordable])
    ratio = table.tokens / table.params
    pairs = np.array(
        [(size, budget / fit.flops_per_product / size) for size, budget in itertools.product(sizes, budgets)]
    )
    inside = (pairs[:, 1] / pairs[:, 0] >= ratio.min() / 3) & (pairs[:, 1] / pairs[:, 0] <= ratio.max() * 3)
    return pairs[inside, 0], pairs[inside, 1]


def show_suggestions(
    fit: "SweepFit",
    count: int,
    words: Sequence[str],
    *,
    size: str | None = None,
    tokens: str | None = None,
    compute: str | None = None,
    affordable: str | None = None,
) -> list[Suggestion]:
    """Prints and returns the next runs, as a table and as lines to type, to which the `words` are added. `size`,
    `tokens`, `compute`: of the run whose loss is to be known, by default the best at ten times the largest budget."""
    given = {"size": size, "tokens": tokens, "compute": compute, "affordable": affordable}
    numbers = {name: None if value is None else float(parse_quantity(value, name)) for name, value in given.items()}
    largest = fit.comparison.largest_budget
    target = fit.allocation(numbers["size"], numbers["tokens"], numbers["compute"] or largest * _REACH)
    most = numbers["affordable"] or largest
    result = suggest_runs(fit.surface, fit.table.params, fit.table.tokens, target, candidates(fit, most), count=count)
    forms = {"N": "{params:quantity}", "D": "{tokens:quantity}", "FLOPs": "{compute:.2g}"}
    forms |= {"standard error before": "{error_before:.3%}", "after": "{error_after:.3%}"}
    title = (
        f"next runs for the loss at N {quantity(target.params)}, D {quantity(target.tokens)} "
        f"(each at most {most:.2g} FLOPs)"
    )
    console = Console()
    console.print(terminal_table(forms, result, title))
    for line in _lines(fit, result, words):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return result


def _lines(fit: "SweepFit", result: Sequence[Suggestion], words: Sequence[str]) -> list[str]:
    """One multirun for each budget; a run that is suggested again is another seed."""
    groups: dict[tuple[str, int], list[str]] = {}
    times: dict[tuple[str, str], int] = {}
    for run in result:
        # 6 N D of the suggestion is what the planner counts; the run's own FLOPs are what `compute` means.
        compute = f"{run.compute * fit.flops_per_product / 6:.3g}"
        size = f"{float(f'{run.params:.3g}'):.0f}"
        repeat = times[size, compute] = times.get((size, compute), -1) + 1
        groups.setdefault((compute, repeat), []).append(size)
    taken = int(fit.table.seed.max()) if fit.table.seed is not None else 0
    return [
        shlex.join(
            ["maquette", "train", "-m", f"size={','.join(sizes)}", f"compute={compute.replace('+', '')}", *words]
            + ([f"seed={taken + repeat}"] if repeat else [])
        )
        for (compute, repeat), sizes in groups.items()
    ]
