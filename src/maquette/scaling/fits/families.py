"""Families of runs beside each other: one line per family over compute, and how they differ.

    maquette fit runs=architecture compare=model.kind

Of every family the minima of its IsoFLOP curves are compared, or where it has none the best run of each budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.artifacts.errors import ConfigError
from maquette.reports.figures import COLORS, draw_law, new_figure, plain_ticks
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.difference import LawDifference, compare_families, decision_accuracy
from maquette.scaling.laws.isoflop import fit_isoflop
from maquette.scaling.laws.runs import Array, LawError, group_budgets, seed_noise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST_BUDGETS = 4
"""With fewer a difference in slope has hardly any interval; it is said."""


@dataclass(frozen=True)
class Family:
    """One family's line: `compute` and `loss` (m,) by budget, and whether they are minima or best runs."""

    name: str
    table: RunTable
    compute: Array
    loss: Array
    minima: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class FamilyComparison:
    """The families by name, and of each but the first its difference from the first. `decisions`: by budget the share
    of pairs of families that it ranks as the largest budget does, nan where no two have it; pairs that the noise of the
    seed could have ranked do not count."""

    column: str
    families: Mapping[str, Family]
    differences: Mapping[str, LawDifference]
    decisions: Mapping[float, float]
    level: float
    warnings: tuple[str, ...]

    @property
    def words(self) -> str:
        """The differences, a sentence or two each, and how far a small budget's ranking is to be trusted."""
        decisions = "; ".join(
            f"{share:.0%} at {at:.2g} FLOPs" for at, share in self.decisions.items() if share == share
        )
        ranking = [f"Pairs that are ranked as at the largest budget: {decisions}."] if decisions else []
        return " ".join([*(difference.words for difference in self.differences.values()), *ranking])


def split_families(table: RunTable, column: str) -> dict[str, RunTable]:
    """The runs by their value in `column` (several of them with + between: by their values together): the value with
    most runs first, of equally many the one whose runs reach the lowest losses.

    Raises `ConfigError` for an unknown column or one with a single value.
    """
    values = np.array(
        [
            " ".join(map(str, row))
            for row in zip(*(table.column(name, "compare") for name in column.split("+")), strict=True)
        ]
    )
    names, counts = np.unique(values, return_counts=True)
    if len(names) < 2:
        raise ConfigError(
            f"compare={column}: all runs of {table.source} have {names[0]}.", "Name a column with several values."
        )
    reached = [float(np.log(table.loss[values == name]).mean()) for name in names]
    order = sorted(range(len(names)), key=lambda index: (-counts[index], reached[index]))
    return {str(names[index]): table.take(values == names[index]) for index in order}


def compare_by(table: RunTable, column: str, level: float = 0.9) -> FamilyComparison:
    """Compares the families that `column` makes. Raises `LawError` where their lines can't be fitted."""
    # One set of budgets for all: families that count FLOPs a little differently still meet.
    budgets = group_budgets(table.compute)
    families = {name: _family(name, part, level) for name, part in split_families(table, column).items()}
    first, *others = families.values()
    differences = {
        other.name: compare_families(
            first.compute, first.loss, other.compute, other.loss, names=(first.name, other.name), level=level
        )
        for other in others
    }
    warnings = [f"{family.name}: {text}" for family in families.values() for text in family.warnings]
    if len({family.minima for family in families.values()}) > 1:
        warnings.append("Minima of one family are compared with best runs of another: the latter lose a little.")
    if len(np.unique(budgets)) < FEWEST_BUDGETS:
        warnings.append(f"{len(np.unique(budgets))} budgets hardly show a slope; four or more do.")
    # Without seeds, runs of one size that differ in the family would be taken for repeats.
    known = table.seed is not None
    noise = seed_noise(table.params, table.tokens, table.loss, table.seed)[0] if known else np.nan
    decisions = _decisions(list(families.values()), noise)
    return FamilyComparison(column, families, differences, decisions, level, tuple(warnings))


def _decisions(families: list[Family], noise: float) -> dict[float, float]:
    compute = np.concatenate([family.compute for family in families])
    groups, at = np.unique(group_budgets(compute), return_inverse=True)
    if len(groups) < 2:
        return {}
    losses = np.full((len(families), len(groups)), np.nan)
    owner = np.repeat(np.arange(len(families)), [len(family.compute) for family in families])
    losses[owner, at] = np.concatenate([family.loss for family in families])
    shares = decision_accuracy(losses, np.sqrt(2) * noise if np.isfinite(noise) else 0.0)
    return {float(budget): float(share) for budget, share in zip(groups, shares, strict=False)}


def _family(name: str, table: RunTable, level: float) -> Family:
    try:
        line = fit_isoflop(table.params, table.tokens, table.loss, table.budget, level=level)
        points = np.array([(o.budget, o.loss) for o in line.optima])
        if len(points) >= 3:
            return Family(name, table, points[:, 0], points[:, 1], True, line.warnings)
    except LawError:
        pass
    rows = [
        np.flatnonzero(table.budget == budget)[np.argmin(table.loss[table.budget == budget])]
        for budget in np.unique(table.budget)
    ]
    return Family(name, table, table.compute[rows], table.loss[rows], False, ("best runs by budget, not minima.",))


def comparison_facts(comparison: FamilyComparison) -> dict[str, Any]:
    """The comparison as plain values."""
    return {
        "column": comparison.column,
        "level": comparison.level,
        "families": {
            name: {"runs": len(family.table), "minima": family.minima, "compute": family.compute.tolist(),
                   "loss": family.loss.tolist()}
            for name, family in comparison.families.items()
        },
        "differences": {
            name: {
                "slope": d.slope, "slope_interval": list(d.slope_interval), "ratio": d.ratio,
                "ratio_interval": list(d.ratio_interval), "compute_factor": d.compute_factor, "at": d.at,
                "exponents": [d.first.exponent, d.second.exponent], "words": d.words, "forecast": _beyond(d),
                "crossing": d.crossing if np.isfinite(d.crossing_interval.high) else None,
                "crossing_interval": list(d.crossing_interval) if np.isfinite(d.crossing_interval.high) else None,
            }
            for name, d in comparison.differences.items()
        },
        "decisions": [
            {"C": at, "accuracy": None if np.isnan(share) else share} for at, share in comparison.decisions.items()
        ],
        "warnings": list(comparison.warnings),
    }  # fmt: skip


def _beyond(difference: LawDifference) -> dict[str, Any]:
    """The difference at ten times the largest compute."""
    compute = 10 * difference.largest
    forecast = difference.predict(compute)
    return {"C": compute, "ratio": float(forecast.loss), "interval90": [float(end) for end in forecast.intervals[0.9]]}


def comparison_figure(comparison: FamilyComparison) -> "Figure":
    """Both curves: every run, the points that count, and the line through them with its interval."""
    figure, axes = new_figure(width=7.0, height=4.6)
    laws = {name: d.second for name, d in comparison.differences.items()}
    first = next(iter(comparison.differences.values())).first
    everything = np.concatenate([family.compute for family in comparison.families.values()])
    compute = np.geomspace(everything.min() / 1.5, everything.max() * 3, 60)
    for (name, family), color in zip(comparison.families.items(), COLORS, strict=False):
        law = laws.get(name, first)
        axes.plot(family.table.compute, family.table.loss, ".", color=color, alpha=0.3, ms=4)
        axes.plot(family.compute, family.loss, "o", color=color)
        draw_law(axes, compute, law, color, f"{name}: L ~ C^{law.exponent:.3f}", level=comparison.level)
    axes.set(xscale="log", yscale="log", xlabel="compute C (FLOPs)", ylabel="loss (nats per token)")
    shown = np.concatenate([family.loss for family in comparison.families.values()])
    axes.set_ylim(0.93 * shown.min(), 1.07 * shown.max())
    plain_ticks(axes.yaxis)
    axes.set_title(f"By {comparison.column}: offset or slope? ({comparison.level:.0%} intervals)")
    axes.legend(fontsize=8)
    return figure
