"""IsoFLOP curves: the best size at each budget, and the line through these minima (Hoffmann et al. 2022, approach 2).

At one budget a small model sees much data and a large one little; in between the loss has a minimum. The minima of
several budgets lie on N* = coefficient x C^exponent.

The method has a bias of its own: a curve of equal compute is no parabola, so a wide or off-centre grid moves the
vertex, even without noise, and moves it differently at each budget (Xu et al. 2026, "Problems with Chinchilla
Approach 2"). So every fit repeats itself on a surface fitted to the same runs, without noise and on the same grid,
where the right answer is known, and reports the difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.scaling.laws.fit import fit_surface
from maquette.scaling.laws.minimum import METHODS, CurveMinimum, curve_minimum
from maquette.scaling.laws.power_law import PowerLawFit, fit_power_law
from maquette.scaling.laws.runs import Array, LawError, positive_columns
from maquette.scaling.laws.surface import LossSurface
from maquette.statistics import Interval

WIDE = 32.0
"""Largest over smallest N of a budget above which a parabola is warned of."""

OFF_CENTRE = 0.25
"""A minimum within this share of its grid's width from an end is warned of."""


class IsoflopMinimum(NamedTuple):
    """The best run of one budget, between the runs: `params`, `tokens`, `loss` (nats per token).

    `curvature`: second derivative of log loss over ln N.
    """

    budget: float
    params: float
    tokens: float
    loss: float
    curvature: float


class IsoflopBias(NamedTuple):
    """What the method gets wrong on a noise-free surface over the same grid.

    `exponent`: found less true. `params`: relative error of N*, by budget.
    """

    exponent: float
    params: tuple[float, ...]


@dataclass(frozen=True)
class IsoflopFit:
    """N* = `coefficient` x C^`exponent`, with the exponent's `interval`, through the inner minima `optima`.

    `params_law`, `tokens_law`, `loss_law`: the power laws of N*, D* and L* in the budget. `bias`: None where no
    surface could be fitted to the runs.
    """

    optima: tuple[IsoflopMinimum, ...]
    coefficient: float
    exponent: float
    interval: Interval
    warnings: tuple[str, ...]
    params_law: PowerLawFit
    tokens_law: PowerLawFit
    loss_law: PowerLawFit
    bias: IsoflopBias | None


def fit_isoflop(
    params: ArrayLike,
    tokens: ArrayLike,
    loss: ArrayLike,
    budgets: ArrayLike,
    method: str = "parabola",
    *,
    level: float = 0.9,
) -> IsoflopFit:
    """Fits the line through the minima of log loss over log N, one curve per budget.

    All columns (n,); `budgets`: each run's budget in FLOPs, the same number for all runs of a curve. `method`:
    parabola or akima. Budgets with fewer than three sizes, or whose minimum lies at an edge of the grid, are left
    out and named. The interval is Student's from the scatter of the minima about their line.
    Raises `LawError` for an unknown method, bad columns, or fewer than two budgets with a minimum inside.
    """
    if method not in METHODS:
        raise LawError(f"method={method} is not known.", f"Allowed: {', '.join(METHODS)}.")
    sizes, token_counts, losses, compute = positive_columns(params=params, tokens=tokens, loss=loss, budgets=budgets)
    curves = [np.flatnonzero(compute == budget) for budget in np.unique(compute)]
    optima, warnings = [], []
    used, minima = [], []
    for rows in curves:
        budget = float(compute[rows[0]])
        if len(np.unique(sizes[rows])) < 3:
            warnings.append(f"Budget {budget:.3g} has fewer than three sizes and is left out: add sizes there.")
            continue
        minimum = curve_minimum(np.log(sizes[rows]), np.log(losses[rows]), method)
        if minimum.edge:
            warnings.append(
                f"Budget {budget:.3g} is left out: "
                f"its loss still falls at its {minimum.edge} size, {np.exp(minimum.x):.3g}. Add sizes beyond it."
            )
            continue
        used.append(rows)
        minima.append(minimum)
        optima.append(_optimum(budget, minimum, sizes[rows], token_counts[rows]))
    if len(optima) < 2:
        amount = "None" if not optima else "Only one"
        raise LawError(
            f"{amount} of {len(curves)} budgets has a minimum inside of its grid: there is no line to fit.",
            " ".join(warnings) + " Widen the grid where the loss still falls.",
        )
    laws = [
        fit_power_law([o.budget for o in optima], values, level=level)
        for values in ([o.params for o in optima], [o.tokens for o in optima], [o.loss for o in optima])
    ]
    if len(optima) == 2:
        warnings.append("Two budgets: the exponent has no interval. Add a third.")
    bias = _bias(sizes, token_counts, losses, used, [o.budget for o in optima], method)
    warnings += _grid_warnings(optima, minima, [sizes[rows] for rows in used], method, bias)
    return IsoflopFit(
        optima=tuple(optima),
        coefficient=laws[0].coefficient,
        exponent=laws[0].exponent,
        interval=laws[0].interval["exponent"],
        warnings=tuple(warnings),
        params_law=laws[0],
        tokens_law=laws[1],
        loss_law=laws[2],
        bias=bias,
    )


def _optimum(budget: float, minimum: CurveMinimum, sizes: Array, token_counts: Array) -> IsoflopMinimum:
    # Along a curve N times D is constant in some convention: a line in log-log reads D* off the runs themselves.
    tokens = _interpolate(minimum.x, np.log(sizes), np.log(token_counts))
    return IsoflopMinimum(
        budget, float(np.exp(minimum.x)), float(np.exp(tokens)), float(np.exp(minimum.y)), minimum.curvature
    )


def _interpolate(at: float, x: Array, y: Array) -> float:
    order = np.argsort(x)
    return float(np.interp(at, x[order], y[order]))


def _bias(
    sizes: Array,
    token_counts: Array,
    losses: Array,
    curves: Sequence[NDArray[np.intp]],
    budgets: Sequence[float],
    method: str,
) -> IsoflopBias | None:
    """The method's error on the additive surface that fits the runs best, on the same grid without noise."""
    try:
        surface = fit_surface(sizes, token_counts, losses).surface
    except LawError:
        return None
    estimated, true = [], []
    for rows in curves:
        minimum = curve_minimum(np.log(sizes[rows]), np.log(surface.loss(sizes[rows], token_counts[rows])), method)
        estimated.append(np.nan if minimum.edge else minimum.x)
        true.append(_true_minimum(surface, np.log(sizes[rows]), np.log(token_counts[rows])))
    errors = np.array(estimated) - np.array(true)
    inside = np.isfinite(errors)
    if inside.sum() < 2:
        return None
    slope = np.polyfit(np.log(budgets)[inside], errors[inside], 1)[0]
    return IsoflopBias(float(slope), tuple(float(np.expm1(error)) for error in errors))


def _true_minimum(surface: LossSurface, log_params: Array, log_tokens: Array) -> float:
    """ln N of the surface's least loss along the curve ln D = c - s ln N on which the runs lie."""
    slope, constant = np.polyfit(log_params, log_tokens, 1)
    steep = -slope * surface.beta
    log_balance = np.log(surface.alpha * surface.A) - np.log(steep * surface.B) + surface.beta * constant
    return float(log_balance / (surface.alpha + steep))


def _grid_warnings(
    optima: Sequence[IsoflopMinimum],
    minima: Sequence[CurveMinimum],
    sizes: Sequence[Array],
    method: str,
    bias: IsoflopBias | None,
) -> list[str]:
    warnings = []
    wide = [f"{o.budget:.3g}" for o, grid in zip(optima, sizes, strict=True) if grid.max() / grid.min() > WIDE]
    if wide and method == "parabola":
        warnings.append(
            f"Wide grids (more than {WIDE:g}-fold in N) at budgets {', '.join(wide)}: a parabola over them is biased; "
            "method=akima is not."
        )
    beside = [
        f"{o.budget:.3g}" for o, m in zip(optima, minima, strict=True) if not OFF_CENTRE <= m.position <= 1 - OFF_CENTRE
    ]
    if beside:
        warnings.append(
            f"Off-centre grids at budgets {', '.join(beside)}: the minimum lies near an end of the sizes. Add sizes "
            "beyond that end."
        )
    if bias is None:
        warnings.append(
            "The method's own error is unknown: the fitted surface has no minimum among these sizes. Add sizes."
        )
        return warnings
    if abs(bias.exponent) > 0.01:
        warnings.append(
            f"Even without noise this method is {bias.exponent:+.3f} off in the exponent on these sizes. Read the "
            "exponent with that much doubt, or add sizes around the minima."
        )
    if np.nanmax(np.abs(bias.params)) > 0.05:
        warnings.append(
            f"Even without noise this method's best size is up to {np.nanmax(np.abs(bias.params)):.0%} off on these "
            "sizes. Add sizes around the minima."
        )
    return warnings


class EnvelopeFit(NamedTuple):
    """Approach 1: the runs that no cheaper run beats, and the laws through them of N and of the loss in compute.
    `interval` is the exponent's, Student's."""

    rows: tuple[int, ...]
    coefficient: float
    exponent: float
    interval: Interval
    loss_law: PowerLawFit
    warnings: tuple[str, ...]


def fit_envelope(params: ArrayLike, loss: ArrayLike, compute: ArrayLike, *, level: float = 0.9) -> EnvelopeFit:
    """Laws through the lower envelope of final losses over compute (Hoffmann et al. 2022, approach 1, who took whole
    training curves), columns (n,).

    `rows` index the runs on the envelope. The best run of a grid is only the nearest to the best size, so N* moves
    in steps of the grid. Raises `LawError` where fewer than three budgets are on the envelope.
    """
    sizes, losses, flops = positive_columns(params=params, loss=loss, compute=compute)
    order = np.lexsort((losses, flops))
    best = np.inf
    rows: list[int] = []
    for row in order:
        if losses[row] < best:
            best = losses[row]
            # Of runs with (nearly) one budget only the best is on the envelope.
            if rows and flops[row] < 1.05 * flops[rows[-1]]:
                rows.pop()
            rows.append(int(row))
    if len(rows) < 3:
        raise LawError(f"Only {len(rows)} runs lie on the envelope: too few for a law.", "Train at more budgets.")
    law = fit_power_law(flops[rows], sizes[rows], level=level)
    loss_law = fit_power_law(flops[rows], losses[rows], level=level)
    warnings = list(loss_law.warnings)
    if len(np.unique(sizes[rows])) < len(rows):
        warnings.append("One size is the best at several budgets: put sizes closer together.")
    return EnvelopeFit(tuple(rows), law.coefficient, law.exponent, law.interval["exponent"], loss_law, tuple(warnings))
