"""How well a law predicts larger budgets from smaller ones: rolling origin (Tashman 2000).

In sample all laws look alike: where the additive law missed a run of ten times the compute by 15%, its mean error on
the runs it was fitted to was 1%. So a law is fitted to the budgets up to C_k and predicts the runs beyond, for every k.
What comes out is used twice: to compare laws (`scores`), and as the scale of their intervals on the same runs
(`width`): a law that has been wrong by more than its interval will be so again.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.stats import t

from maquette.scaling.laws.forecast import FREEDOM, Extrapolated
from maquette.scaling.laws.runs import Array, LawError, Runs
from maquette.statistics import interval_score

FIRST, MOST = 2, 6
"""Budgets at the first origin, and origins at the most: the last ones."""

NEAR = 2.0
"""Laws are judged by the runs within this factor, in N, of the best run of a budget: where they will be used."""

PRIOR_ERRORS, USUAL = 3.6, 0.9
"""`width` begins with so many errors of the usual mean square, in units of `Extrapolated.scale`."""


class FittedLaw(Protocol):
    """What can be judged: a law fitted to runs, which says what it expects of runs of N, D and C, (m,) each."""

    def extrapolate(self, params: Array, tokens: Array, compute: Array) -> Extrapolated: ...


class HeldOutBudget(NamedTuple):
    """One budget predicted from the `budgets` smallest: `reach`, it over the largest of these; `expected` of its runs
    (m,), and `errors` (m,), ln of predicted over observed loss."""

    budgets: int
    budget: float
    reach: float
    expected: Extrapolated
    errors: Array


class LawScore(NamedTuple):
    """How one law did at one reach (rounded to half decades). `score`: mean interval score of ln L (smaller is better;
    Gneiting and Raftery 2007). `error`: mean relative error. `covered`: share of runs inside of their intervals.
    `runs`: how many were predicted."""

    form: str
    reach: float
    score: float
    error: float
    covered: float
    runs: int


def rolling_origin(
    fit: Callable[[Runs], FittedLaw], runs: Runs, *, first: int = FIRST, most: int = MOST
) -> list[HeldOutBudget]:
    """Every later budget predicted from every origin, of the last `most`. An origin where nothing can be fitted is left
    out."""
    budgets = np.unique(runs.budget)
    rows = []
    for origin in range(max(first, len(budgets) - most), len(budgets)):
        try:
            fitted = fit(runs.take(runs.budget <= budgets[origin - 1] * (1 + 1e-9)))
        except LawError:
            continue
        targets = [runs.take(runs.near_best(float(budget), NEAR)) for budget in budgets[origin:]]
        expected = fitted.extrapolate(
            *(np.concatenate([getattr(one, name) for one in targets]) for name in ("params", "tokens", "compute"))
        )
        last = 0
        for budget, target in zip(budgets[origin:], targets, strict=True):
            part = Extrapolated(*(column[last : last + len(target.loss)] for column in expected))
            last += len(target.loss)
            reach = float(budget / budgets[origin - 1])
            rows.append(HeldOutBudget(origin, float(budget), reach, part, part.log_loss - np.log(target.loss)))
    return rows


def width(rows: Sequence[HeldOutBudget]) -> float:
    """How many times wider than elsewhere the intervals of a law are to be on these runs: the root mean square of its
    past errors in units of its scale, each origin counting once, shrunk towards 1."""
    if not rows:
        return 1.0
    origins = len({row.budgets for row in rows})
    square = float(np.mean([np.mean(row.errors / row.expected.scale) ** 2 for row in rows]))
    prior = PRIOR_ERRORS * USUAL
    return float(np.sqrt((prior + origins * square) / (prior + origins * USUAL)))


def width_before(row: HeldOutBudget, rows: Sequence[HeldOutBudget]) -> float:
    """The width that was known at the origin of `row`, from what the origins before it predicted up to there."""
    largest = row.budget / row.reach * (1 + 1e-9)
    return width([one for one in rows if one.budgets < row.budgets and one.budget <= largest])


def scores(form: str, rows: Sequence[HeldOutBudget], level: float) -> list[LawScore]:
    """Means by reach, each origin's intervals as wide as they would have been there."""
    quantile = t.ppf((1 + level) / 2, FREEDOM)
    table: dict[float, list[tuple[Array, Array]]] = {}
    for row in rows:
        half = quantile * width_before(row, rows) * row.expected.scale
        table.setdefault(half_decade(row.reach), []).append((row.errors, half))
    result = []
    for reach, parts in sorted(table.items()):
        errors, half = (np.concatenate(column) for column in zip(*parts, strict=True))
        score = interval_score(errors - half, errors + half, np.zeros_like(errors), level).mean()
        mean, covered = float(np.expm1(errors.mean())), float(np.mean(np.abs(errors) <= half))
        result.append(LawScore(form, reach, float(score), mean, covered, len(errors)))
    return result


def half_decade(reach: float) -> float:
    """A reach rounded to half decades, at the least one."""
    return float(f"{10 ** (max(1, round(2 * np.log10(reach))) / 2):.2g}")
