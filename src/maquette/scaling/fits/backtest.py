"""How good were predictions on tables whose larger runs are known: every law from every origin, beside null laws.

    maquette backtest runs=anybodys.csv by=dataset

Of each table the budgets up to C_k predict the runs near the best size of every later budget (rolling origin). Tables
weigh alike, and in a table its origins: a long sweep is not many sweeps. Two laws that need no thought stand in every
table: a straight line through the best runs of the last two budgets, and the additive form by Huber's loss (Hoffmann et
al. 2022).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import t

from maquette.artifacts.progress import progress
from maquette.reports.figures import COLORS, new_figure, plain_ticks
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws import forecast
from maquette.scaling.laws.custom_form import custom_form
from maquette.scaling.laws.fit import fit_surface
from maquette.scaling.laws.fitted_form import FittedForm, by_complexity, fit_form
from maquette.scaling.laws.forecast import Extrapolated, extrapolate
from maquette.scaling.laws.predictor import weighted_surface
from maquette.scaling.laws.rolling_origin import FittedLaw, HeldOutBudget, half_decade, rolling_origin, width_before
from maquette.scaling.laws.runs import Array, LawError, Runs
from maquette.statistics import interval_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST = 3
"""Budgets at the first origin that counts; those before it only tell how wide intervals are to be."""

NULL_NOISE = 0.006
"""Deviation of ln L that the null laws claim."""

PREDICTOR = "predictor"


@dataclass(frozen=True)
class LastTwoBudgets:
    """ln L against ln C, a straight line through the best runs of the last two budgets."""

    runs: Runs

    def log_loss(self, params: Array, tokens: Array, compute: Array) -> Array:
        """ln L of runs (m,); their size does not count."""
        (x, y), (next_x, next_y) = (
            min(zip(np.log(self.runs.loss[here]), np.log(self.runs.compute[here]), strict=True))[::-1]
            for here in (self.runs.budget == budget for budget in np.unique(self.runs.budget)[-2:])
        )
        return np.asarray(y + (next_y - y) / (next_x - x) * (np.log(compute) - x))

    def extrapolate(self, params: Array, tokens: Array, compute: Array) -> Extrapolated:
        """What it says of runs (m,)."""
        deviation = np.full(len(params), NULL_NOISE)
        return extrapolate(self.log_loss, deviation, self.runs, params, tokens, compute)


def huber(runs: Runs) -> FittedForm:
    """The additive form as Hoffmann et al. 2022 fitted it."""
    fit = fit_surface(runs.params, runs.tokens, runs.loss, method="huber")
    if fit.degrees_of_freedom < 1:
        raise LawError("There are as many runs as parameters.")
    return FittedForm("additive", runs, fit, None, fit.noise, fit.degrees_of_freedom, fit.warnings)


class LawRecord(NamedTuple):
    """How one law did at one reach (rounded to half decades), in shares of the loss: median of the absolute error, mean
    error, how often the 50% and the 90% interval held, median width and mean interval score of the 90% one."""

    law: str
    reach: float
    median_error: float
    bias: float
    inside50: float
    inside90: float
    width90: float
    score90: float
    tables: int
    runs: int


@dataclass(frozen=True)
class HeldOutRuns:
    """Every run that one law predicted, as columns (m,): the `table` it stands in, its `reach`, its `weight` (tables
    alike, in each its predicted budgets alike), the `error` (ln of predicted over observed loss), and what its interval
    was made of: `width`, the law's own `deviation`, `drop`."""

    table: NDArray[np.str_]
    reach: Array
    weight: Array
    error: Array
    width: Array
    deviation: Array
    drop: Array

    def scale(self, share: float = forecast.SHARE, of_drop: float = forecast.OF_DROP) -> Array:
        """The deviation that the interval is made of, by other constants than those in use."""
        return self.width * np.sqrt(forecast.FLOOR**2 + (share * self.deviation) ** 2 + (of_drop * self.drop) ** 2)

    def take(self, rows: NDArray[np.bool_]) -> "HeldOutRuns":
        """The runs for which `rows` (m,) is true."""
        return HeldOutRuns(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Backtest:
    """What every law predicted, by its name. `tables`: by name, of how many runs; `left_out`: those too short, with the
    reason. `constants`: of the interval, (share of the deviation, share of the drop, degrees of freedom): those in use,
    and where there are several tables those learned from all and without each."""

    tables: Mapping[str, int]
    left_out: Mapping[str, str]
    laws: Mapping[str, HeldOutRuns]
    constants: Mapping[str, tuple[float, float, float]]

    def records(self) -> list[LawRecord]:
        """Every law at every reach, by reach."""
        records = [record for law, held_out in self.laws.items() for record in _records(law, held_out)]
        return sorted(records, key=lambda record: record.reach)

    def facts(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "tables": dict(self.tables), "left_out": dict(self.left_out), "constants": dict(self.constants),
            "records": [record._asdict() for record in self.records()],
        }  # fmt: skip


def backtest(tables: Mapping[str, RunTable], forms: Sequence[Any] = ()) -> Backtest:
    """Predicts the larger budgets of every table from its smaller ones. `forms`: of one's own, as for `compare_forms`.

    A table needs four budgets. Raises `LawError` where none has.
    """
    left_out = {
        name: f"{len(np.unique(table.budget))} budgets; {FIRST + 1} at the least"
        for name, table in tables.items()
        if len(np.unique(table.budget)) <= FIRST
    }
    used = {name: table for name, table in tables.items() if name not in left_out}
    if not used:
        raise LawError(
            "No table has a budget to hold out.", "; ".join(f"{name}: {why}" for name, why in left_out.items())
        )
    own = by_complexity([custom_form(form) for form in forms])
    columns: dict[str, list[HeldOutRuns]] = {}
    with progress("Backtest", len(used) * (len(own) + 3), unit="laws") as advance:
        for name, table in used.items():
            runs = Runs(table.params, table.tokens, table.loss, table.compute, table.budget)
            entropy = np.inf if table.unigram_entropy is None else float(np.median(table.unigram_entropy))
            laws: dict[str, Callable[[Runs], FittedLaw]] = {
                PREDICTOR: partial(weighted_surface, entropy=entropy),
                **{form_name: partial(fit_form, form) for form_name, form in own.items()},
                "last two budgets": LastTwoBudgets,
                "additive, Huber": huber,
            }
            for law, fit in laws.items():
                rows = rolling_origin(fit, runs, most=len(np.unique(runs.budget)))
                columns.setdefault(law, []).append(_held_out(name, rows))
                advance(1)
    joined = {
        law: HeldOutRuns(
            *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(HeldOutRuns))
        )
        for law, parts in columns.items()
    }
    names = {name: len(table) for name, table in used.items()}
    return Backtest(names, left_out, joined, _constants(joined[PREDICTOR], list(used)))


def _held_out(table: str, rows: Sequence[HeldOutBudget]) -> HeldOutRuns:
    counted = [row for row in rows if row.budgets >= FIRST]
    size = [len(row.errors) for row in counted]

    def each(values: Sequence[float]) -> Array:
        return np.repeat(np.asarray(values, float), size)

    def joined(parts: Sequence[Array]) -> Array:
        return np.concatenate([*parts, np.empty(0)])

    return HeldOutRuns(
        np.repeat(table, sum(size)),
        each([row.reach for row in counted]),
        each([1 / (count * len(counted)) for count in size]),
        joined([row.errors for row in counted]),
        each([width_before(row, rows) for row in counted]),
        joined([row.expected.deviation for row in counted]),
        joined([row.expected.drop for row in counted]),
    )


def _records(law: str, held_out: HeldOutRuns) -> list[LawRecord]:
    records = []
    reaches = np.array([half_decade(reach) for reach in held_out.reach])
    for reach in np.unique(reaches):
        here = held_out.take(reaches == reach)
        # Tables weigh alike at each reach too, whatever else they have.
        totals = {table: here.weight[here.table == table].sum() for table in np.unique(here.table)}
        weight = here.weight / np.array([totals[table] for table in here.table]) / len(totals)
        halves = {level: t.ppf((1 + level) / 2, forecast.FREEDOM) * here.scale() for level in (0.5, 0.9)}
        inside = {level: float(weight @ (np.abs(here.error) <= half)) for level, half in halves.items()}
        half = halves[0.9]
        score = interval_score(here.error - half, here.error + half, np.zeros_like(half), 0.9)
        records.append(
            LawRecord(
                law,
                float(reach),
                _median(np.abs(here.error), weight),
                float(weight @ here.error),
                inside[0.5],
                inside[0.9],
                _median(2 * half, weight),
                float(weight @ score),
                len(totals),
                len(weight),
            )
        )
    return records


def _median(values: Array, weight: Array) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weight[order]), 0.5 * weight.sum() - 1e-12)])


def _constants(held_out: HeldOutRuns, tables: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    in_use = {"in use": (forecast.SHARE, forecast.OF_DROP, forecast.FREEDOM)}
    if len(tables) < 2:
        return in_use
    without = {f"without {table}": _learn(held_out.take(held_out.table != table)) for table in tables}
    return in_use | {"learned": _learn(held_out)} | without


def _learn(held_out: HeldOutRuns) -> tuple[float, float, float]:
    """The constants of greatest mean log score of Student's t; those in use count as a weak prior."""
    start = np.log([forecast.SHARE, forecast.OF_DROP, forecast.FREEDOM])
    weight = held_out.weight / held_out.weight.sum()

    def loss(theta: Array) -> float:
        share, of_drop, freedom = np.exp(np.clip(theta, -8, 5))
        scale = held_out.scale(share, of_drop)
        return float(
            -weight @ (t.logpdf(held_out.error / scale, freedom) - np.log(scale)) + 0.01 * np.sum((theta - start) ** 2)
        )

    share, of_drop, freedom = np.exp(minimize(loss, start, method="Nelder-Mead", options={"maxiter": 300}).x)
    return float(share), float(of_drop), float(freedom)


def backtest_figure(result: Backtest) -> "Figure":
    """Left the median error of every law by reach, right how often its intervals held."""
    figure, (left, right) = new_figure(1, 2, width=5.2, height=4.0)
    records = result.records()
    for place, law in enumerate(result.laws):
        rows = [record for record in records if record.law == law]
        reach = [record.reach for record in rows]
        style = {"color": "black", "lw": 2.4} if law == PREDICTOR else {"color": COLORS[place % len(COLORS)], "lw": 1.0}
        left.plot(reach, [100 * record.median_error for record in rows], "o-", ms=4, label=law, **style)
        right.plot(reach, [100 * record.inside90 for record in rows], "o-", ms=4, **style)
    right.axhline(90, color="gray", ls="--", lw=0.8)
    left.set(xscale="log", yscale="log", ylabel="median error (%)")
    right.set(xscale="log", ylabel="90% intervals that held (%)", ylim=(0, 103))
    reaches = sorted({record.reach for record in records})
    for axes in (left, right):
        axes.set_xticks(reaches, [f"{reach:.3g}" for reach in reaches])
        axes.set_xlabel("reach (times the largest fitted budget)")
        axes.minorticks_off()
        axes.set_xlim(reaches[0] / 1.5, reaches[-1] * 1.5)
    plain_ticks(left.yaxis)
    left.legend(fontsize=8)
    return figure
