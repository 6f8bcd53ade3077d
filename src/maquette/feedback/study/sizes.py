"""What alignment buys over sizes: gold reward of base, SFT, best-of-n, DPO and PPO beside the demonstrators' own level
(Stiennon et al. 2020, figure 1, whose human line it stands for): where does each cross it, and does the gap between
methods grow?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from maquette.artifacts.files import write_text
from maquette.feedback.policies import LEVEL
from maquette.feedback.study.measurement import Measurement
from maquette.feedback.tasks import Exercises, demonstrate
from maquette.reports import write_page
from maquette.reports.figures import COLORS, new_figure
from maquette.reports.tables import quantity
from maquette.statistics import Interval, IntervalEstimate, bootstrap_mean, student_interval

BEST = "best of n"


def demonstrators_level(tasks: Sequence[str], demonstrators: str, *, prompts: int, seed: int) -> IntervalEstimate:
    """Mean gold reward of what demonstrators answer to the held-out exercises that policies are measured on."""
    exercises = Exercises(tasks, seed=seed, split="held_out").take(prompts)
    answers = demonstrate(exercises, demonstrators, seed=seed)
    gold = [one.gold(answer) for one, answer in zip(exercises, answers, strict=True)]
    return bootstrap_mean(gold, level=LEVEL).plain


def crossing(sizes: ArrayLike, gold: ArrayLike, level: float) -> float | None:
    """The smallest size at which `gold (n,)` over rising `sizes (n,)` reaches `level`, linear in the logarithm of the
    size between two; None where it never does. The first size where it is there from the start."""
    sizes, gold = np.asarray(sizes, float), np.asarray(gold, float)
    reached = np.flatnonzero(gold >= level)
    if not len(reached):
        return None
    place = int(reached[0])
    if place == 0:
        return float(sizes[0])
    share = (level - gold[place - 1]) / (gold[place] - gold[place - 1])
    low, high = np.log(sizes[place - 1 : place + 1])
    return float(np.exp(low + share * (high - low)))


def trend(sizes: ArrayLike, gaps: ArrayLike) -> tuple[float, Interval]:
    """How much `gaps (n,)` grow with each decade of `sizes (n,)`, by least squares, with Student's 95% interval
    (unbounded with two sizes)."""
    decades, gaps = np.log10(np.asarray(sizes, float)), np.asarray(gaps, float)
    centred = decades - decades.mean()
    slope = float(centred @ gaps / (centred @ centred))
    freedom = len(gaps) - 2
    residuals = gaps - gaps.mean() - slope * centred
    error = float(np.sqrt(residuals @ residuals / max(1, freedom) / (centred @ centred)))
    return slope, student_interval(slope, error, freedom, LEVEL)


def gold_over_sizes(measured: Mapping[int, Measurement]) -> pd.DataFrame:
    """A row for each size and policy: `size`, `policy`, `gold` with `low` and `high` (none of best-of-n), `kl`."""
    rows: list[dict[str, Any]] = []
    for size, one in measured.items():
        for policy in one.policies:
            point = policy.scores["gold"]
            rows.append({"size": size, "policy": policy.name, "gold": point.value, "low": point.low, "high": point.high,
                         "kl": policy.kl})  # fmt: skip
        for curve in one.best_of_n[:1]:
            n = int(np.argmax(curve.scores[curve.reward]))  # as its reward would choose: gold is not asked
            rows.append({"size": size, "policy": BEST, "gold": curve.scores["gold"][n], "kl": curve.kl[n]})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, level: float, reference: str) -> list[dict[str, Any]]:
    """For each policy `crosses`, the size at which it reaches `level`, and how its gap to the reference grows with a
    decade of sizes: `growth`, `growth_low`, `growth_high` (None for the reference)."""
    by_policy = table.pivot(index="size", columns="policy", values="gold").sort_index()
    rows = []
    for policy in dict.fromkeys(table.policy):
        column = by_policy[policy].dropna()
        row: dict[str, Any] = {"policy": policy, "crosses": crossing(column.index, column, level), "growth": None}
        if policy != reference and len(column) > 1:
            growth, interval = trend(column.index, column - by_policy[reference][column.index])
            row |= {"growth": growth, "growth_low": interval.low, "growth_high": interval.high}
        rows.append(row)
    return rows


def by_size(table: pd.DataFrame, column: str, sizes: Sequence[int]) -> dict[str, list[float | None]]:
    """The values of a column for each policy, one for each of `sizes`; None where the policy has none there."""
    values = table.set_index(["policy", "size"])[column].to_dict()
    return {policy: [values.get((policy, size)) for size in sizes] for policy in dict.fromkeys(table.policy)}


def write_sizes(folder: Path, measured: Mapping[int, Measurement], human: IntervalEstimate, title: str) -> list[Any]:
    """Writes sizes.csv, index.html and the figure into `folder`; returns the rows of `summary`."""
    table = gold_over_sizes(measured)
    reference = next(iter(measured.values())).reference
    rows = summary(table, human.value, reference)
    write_text(folder / "sizes.csv", table.assign(human=human.value).to_csv(index=False, float_format="%.5g"))
    figure, axes = new_figure(width=6.6, height=4.4)
    axes.axhspan(human.low, human.high, color="0.6", alpha=0.3, linewidth=0)
    axes.axhline(human.value, color="black", linestyle="--", linewidth=1, label="demonstrators")
    for color, (policy, part) in zip(COLORS, table.groupby("policy", sort=False), strict=False):
        errors = [part.gold - part.low.fillna(part.gold), part.high.fillna(part.gold) - part.gold]
        axes.errorbar(
            part["size"], part.gold, yerr=errors, fmt="o-", color=color, markersize=4, capsize=2, label=policy
        )
    axes.set(xscale="log", xlabel="size (parameters)", ylabel="gold reward per completion, T = 1, 95% intervals")
    axes.legend(fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    axes.xaxis.set_major_formatter(lambda size, _: quantity(size))
    axes.xaxis.set_minor_formatter(lambda size, _: quantity(size) if f"{size:e}"[0] in "25" else "")
    sizes = sorted(measured)
    facts = {"title": title, "rows": rows, "human": human, "reference": reference, "sizes": sizes,
             "gold": by_size(table, "gold", sizes), "kl": by_size(table, "kl", sizes)}  # fmt: skip
    write_page(folder, "alignment_sizes.html.j2", facts, {"sizes": figure})
    return rows
