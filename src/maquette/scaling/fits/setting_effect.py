"""What a setting does, at equal compute: measures of finished runs over its values, with intervals over seeds.

    maquette train -m +sweep=vocabulary; maquette fit runs=vocabulary effect=V

Where a budget has several sizes the best of each value counts, so that none wins by having the size that suits it.
Differences are paired by seed (Student's intervals), from the first value on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.reading import parse_json
from maquette.reports.figures import COLORS, new_figure
from maquette.reports.tables import span
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.runs import Array, LawError
from maquette.statistics import Interval, mean_over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BITS = "validation/bits_per_byte"
_HIGHER_IS_BETTER = ("accuracy", "reward", "gold")
_LONGEST = 16  # letters of a value's name under the figure; where one is longer they are called A, B, ...
_PANELS = 3  # in a row of the figure
_ONE_COMPUTE = 0.1  # relative difference up to which compute is equal


@dataclass(frozen=True)
class EffectPoint:
    """A measure at one value of the setting and one budget: the mean over `seeds` runs and its interval, and how much
    it differs from the first value (None for that itself). `each` (seeds,): the runs' own values."""

    value: Any
    budget: float
    each: Array
    mean: float
    interval: Interval
    difference: float | None
    difference_interval: Interval | None

    @property
    def seeds(self) -> int:
        return len(self.each)


@dataclass(frozen=True)
class SettingEffect:
    """By measure its points, budget by budget in the order of the values; `names`: what each value is called."""

    column: str
    names: Mapping[Any, str]
    points: Mapping[str, tuple[EffectPoint, ...]]
    level: float
    warnings: tuple[str, ...]

    @property
    def finding(self) -> str:
        """What the first measure says, a sentence a budget."""
        name, points = next(iter(self.points.items()))
        sentences = []
        for budget in dict.fromkeys(point.budget for point in points):
            here = [point for point in points if point.budget == budget]
            best = (max if higher_is_better(name) else min)(here, key=_mean)
            text = f"At {budget:.2g} FLOPs {name} is best at {self.column}={self.names[best.value]}: {best.mean:.4g}"
            if best.difference is not None and best.difference_interval is not None:
                text += (
                    f", {best.difference:+.4f} ({span(best.difference_interval, 4)}) from {self.names[here[0].value]}"
                )
            sentences.append(f"{text}.")
        return " ".join(sentences)

    @property
    def words(self) -> str:
        """The finding, and what its letters stand for."""
        letters = [f"{name} is {_text(value)}" for value, name in self.names.items() if name != _text(value)]
        return f"{self.finding} Here {'; '.join(letters)}." if letters else self.finding

    def full_name(self, value: Any) -> str:
        """A value with its letter, if it has one."""
        name, text = self.names[value], _text(value)
        return text if name == text else f"{name}: {text}"


def names_of(values: Sequence[Any]) -> dict[Any, str]:
    """Each value as text; where one is long, all are A, B, ... in their order."""
    texts = [_text(value) for value in values]
    if max(map(len, texts)) > _LONGEST and len(texts) <= len(ascii_uppercase):
        texts = list(ascii_uppercase[: len(texts)])
    return dict(zip(values, texts, strict=True))


def _text(value: Any) -> str:
    """A value as it is typed; of lists and mappings, which tables hold as JSON, without what nobody set."""
    if isinstance(value, int | float):
        return f"{value:g}"
    if not isinstance(value, str) or not value.startswith(("[", "{")):
        return str(value)
    try:
        return _typed(parse_json(value, "a value"))
    except StageError:
        return value


def _typed(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_typed(one)}' for key, one in value.items() if one is not None)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_typed, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mean(point: EffectPoint) -> float:
    return point.mean


def higher_is_better(measure: str) -> bool:
    """Whether more of it is better, by its name."""
    return measure.rpartition("/")[2] in _HIGHER_IS_BETTER


def setting_effect(table: RunTable, column: str, measures: Sequence[str] = (), level: float = 0.9) -> SettingEffect:
    """The measures over the values of `column`. By default bits per byte (or the loss) and what was scored on tasks.

    Raises `ConfigError` for a column that is unknown or has a single value, `LawError` where no run has a measure.
    """
    values = table.column(column, "effect").tolist()
    order = sorted(set(values), key=_ascending)
    if len(order) < 2:
        raise ConfigError(f"effect={column}: all runs of {table.source} have {order[0]}.", "Name one that differs.")
    chosen = list(measures) or default_measures(table)
    columns = {name: _numbers(table, name) for name in chosen}
    rows = _best_runs(table, values, columns[chosen[0]], higher_is_better(chosen[0]))
    points = {name: tuple(_points(table, rows, order, numbers, level)) for name, numbers in columns.items()}
    missing = [name for name, measured in points.items() if not measured]
    if missing:
        raise LawError(f"measures={missing[0]}: no two values of {column} have it at one compute.")
    fewest = min(point.seeds for measured in points.values() for point in measured)
    names = names_of(order)
    return SettingEffect(column, names, points, level, tuple(_warnings(table, values, names, rows, fewest)))


def default_measures(table: RunTable) -> list[str]:
    """Bits per byte, which tokenizers have in common, else the loss; and each task's bits per byte and accuracy."""
    names = [str(name) for name in table.frame.columns if table.frame[name].notna().any()]
    tasks = [name for name in names if name.startswith("tasks/") and name.endswith(("/bits_per_byte", "/accuracy"))]
    return [BITS if BITS in names else "loss", *sorted(tasks)]


def _numbers(table: RunTable, name: str) -> Array:
    import pandas as pd

    if name == "loss":
        return table.loss
    return pd.to_numeric(table.column(name, "measures"), errors="coerce").to_numpy(dtype=float)


def _ascending(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, int | float)
    return not number, value if number else str(value)


def _best_runs(
    table: RunTable, values: Sequence[Any], measure: Array, higher: bool
) -> dict[tuple[Any, float, float], int]:
    """By value, budget and seed the row of the run that is best by the measure."""
    seeds = np.zeros(len(table)) if table.seed is None else table.seed
    rows: dict[tuple[Any, float, float], int] = {}
    for row in np.argsort(-measure if higher else measure, kind="stable"):
        if np.isfinite(measure[row]):
            rows.setdefault((values[row], float(table.budget[row]), float(seeds[row])), int(row))
    return rows


def _points(
    table: RunTable, rows: Mapping[tuple[Any, float, float], int], order: Sequence[Any], numbers: Array, level: float
) -> list[EffectPoint]:
    points = []
    for budget in np.unique(table.budget):
        by_value: dict[Any, dict[float, float]] = {
            value: {
                seed: float(numbers[row])
                for (one, at, seed), row in rows.items()
                if one == value and at == budget and np.isfinite(numbers[row])
            }
            for value in order
        }
        known = [value for value in order if by_value[value]]
        if len(known) < 2:
            continue
        first = by_value[known[0]]
        for value in known:
            own = by_value[value]
            each = np.array(list(own.values()))
            shared = [own[seed] - first[seed] for seed in own if seed in first]
            compared = value != known[0] and bool(shared)
            mean = mean_over_seeds(each, level)
            change = mean_over_seeds(shared, level) if compared else None
            points.append(
                EffectPoint(
                    value, float(budget), each, mean.value, mean.interval,
                    None if change is None else change.value, None if change is None else change.interval,
                )
            )  # fmt: skip
    return points


def _warnings(
    table: RunTable,
    values: Sequence[Any],
    names: Mapping[Any, str],
    rows: Mapping[tuple[Any, float, float], int],
    fewest: int,
) -> list[str]:
    warnings = []
    if fewest < 3:
        warnings.append(f"{fewest} seed{'s' if fewest > 1 else ''} a value: three or more tell noise from an effect.")
    for budget in np.unique(table.budget):
        chosen = {(value, seed): row for (value, at, seed), row in rows.items() if at == budget}
        compute = table.compute[list(chosen.values())]
        if len(compute) and compute.max() > (1 + _ONE_COMPUTE) * compute.min():
            factor = compute.max() / compute.min()
            warnings.append(f"Around {budget:.2g} FLOPs compute differs by a factor of {factor:.2f} between runs.")
        edges = []
        for value in sorted({value for value, _ in chosen}, key=_ascending):
            rivals = [row for row, one in enumerate(values) if one == value and table.budget[row] == budget]
            best = [table.params[row] for (one, _), row in chosen.items() if one == value]
            ends = table.params[rivals].min(), table.params[rivals].max()
            if ends[0] < ends[1] and all(size in ends for size in best):
                edges.append(names[value])
        if edges:
            warnings.append(
                f"At {budget:.2g} FLOPs the best size tried is the smallest or the largest for {', '.join(edges)}: "
                "another may be better still."
            )
    return warnings


def effect_facts(effect: SettingEffect) -> dict[str, Any]:
    """The effect as plain values; an interval that has no ends is null."""
    return {
        "column": effect.column,
        "level": effect.level,
        "measures": {
            name: [
                {"value": point.value, "budget": point.budget, "seeds": point.seeds, "mean": point.mean,
                 "interval": _ends(point.interval), "difference": point.difference,
                 "difference_interval": _ends(point.difference_interval)}
                for point in points
            ]
            for name, points in effect.points.items()
        },
        "warnings": list(effect.warnings),
    }  # fmt: skip


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None or not np.isfinite(interval).all() else list(interval)


def effect_table(effect: SettingEffect, measure: str) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headings and rows of one measure."""
    rows: list[tuple[str, ...]] = [
        (
            effect.full_name(point.value),
            f"{point.budget:.2g}", str(point.seeds), f"{point.mean:.4f}",
            "" if point.difference is None else f"{point.difference:+.4f}",
            "" if (ends := _ends(point.difference_interval)) is None else span(ends, 4),
        )
        for point in effect.points[measure]
    ]  # fmt: skip
    return ["value", "FLOPs", "seeds", "mean", "from the first", f"{effect.level:.0%}"], rows


def effect_figure(effect: SettingEffect) -> "Figure":
    """A panel a measure: small dots are runs, large ones means over seeds with their intervals, a colour a budget."""
    from matplotlib.ticker import NullFormatter

    measures = list(effect.points)
    columns = min(_PANELS, len(measures))
    figure, panels = new_figure(-(-len(measures) // columns), columns, width=4.8, height=3.6)
    for axes in np.ravel(panels)[len(measures) :]:
        axes.set_axis_off()
    for axes, name in zip(np.ravel(panels), measures, strict=False):
        points = effect.points[name]
        order = sorted({point.value for point in points}, key=_ascending)
        numbers = all(isinstance(value, int | float) for value in order)
        at = {value: float(value) if numbers else float(place) for place, value in enumerate(order)}
        for budget, color in zip(dict.fromkeys(point.budget for point in points), COLORS, strict=False):
            here = [point for point in points if point.budget == budget]
            x = [at[point.value] for point in here]
            line = "o-" if numbers else "o"  # what has no order has nothing in between
            axes.plot(x, [point.mean for point in here], line, color=color, label=f"{budget:.2g} FLOPs")
            for place, point in zip(x, here, strict=True):
                axes.plot([place] * point.seeds, point.each, ".", color=color, alpha=0.4, ms=4)
                if np.isfinite(point.interval).all():
                    axes.plot([place, place], point.interval, color=color, lw=1.6)
        if numbers and order[0] > 0 and order[-1] >= 8 * order[0]:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(list(at.values()), [effect.names[value] for value in order])
        axes.set(xlabel=effect.column, ylabel=name)
    np.ravel(panels)[0].legend(fontsize=8)
    return figure
