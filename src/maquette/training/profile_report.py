"""A profile as tables and figures: bars of where a step's time goes, and the roofline of its operators (Williams et al.
2009, "Roofline: an insightful visual performance model for multicore architectures")."""

from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.reports.figures import COLORS, name_rows, new_figure
from maquette.training.profile_run import OperatorCost, Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLES: dict[str, dict[str, str]] = {
    "phases": {"phase": "{0}", "ms": "{1:.2f}", "share": "{2:.1%}"},
    "parts": {"part": "{0}", "forward ms": "{1:.2f}", "backward ms": "{2:.2f}", "share": "{3:.1%}"},
    "memory": {"at the fullest moment": "{0}", "measured MB": "{1:.1f}", "predicted MB": "{2:.1f}", "share": "{3:.1%}"},
    "top": {"operator": "{0}", "calls": "{1}", "ms": "{2:.2f}", "share": "{3:.1%}"},
    "operators": {
        "operator": "{0}", "calls": "{1}", "ms": "{2:.2f}", "share": "{3:.1%}", "FLOPs": "{4:quantity}",
        "bytes": "{5:quantity}", "FLOPs a byte": "{6:.2f}", "FLOP/s": "{7:quantity}", "of the peak": "{8:.1%}",
    },
}  # fmt: skip
"""Columns of each table, as `reports.tables` reads them."""


def tables(profile: Profile) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each of `TABLES`, the largest first. Shares of `phases`, of `parts` and of `memory` sum to 1."""
    parts = part_times(profile)
    whole, used = sum(map(sum, parts.values())), sum(profile.memory.values())
    listed, computed = sum(row[2] for row in profile.top), sum(one.seconds for one in profile.operators)
    return {
        "phases": [(name, 1e3 * value, value / profile.seconds) for name, value in _largest(profile.phases)],
        "parts": [
            (name, *(1e3 * value for value in parts[name]), sum(parts[name]) / whole)
            for name, _ in _largest({name: sum(values) for name, values in parts.items()})
        ],
        "memory": [
            (name, value / 1e6, profile.predicted[name] / 1e6 if name in profile.predicted else None, value / used)
            for name, value in _largest(profile.memory)
        ],
        "top": [(name, calls, 1e3 * seconds, seconds / listed) for name, calls, seconds in profile.top],
        "operators": [
            (one.name, one.calls, 1e3 * one.seconds, one.seconds / computed, one.flops, one.bytes, one.intensity,
             one.speed, one.speed / profile.peak)
            for one in profile.main_operators()
        ],
    }  # fmt: skip


def part_times(profile: Profile) -> dict[str, tuple[float, float]]:
    """Seconds forward and backward of each part of the model; what is neither is left out."""
    parts: dict[str, list[float]] = {}
    for name, value in profile.parts.items():
        part, _, way = name.rpartition(", ")
        if way in ("forward", "backward"):
            parts.setdefault(part, [0.0, 0.0])[way == "backward"] += value
    return {name: (forward, backward) for name, (forward, backward) in parts.items()}


def _largest(values: dict[str, float] | dict[str, int]) -> list[tuple[str, float]]:
    return sorted(((name, float(value)) for name, value in values.items()), key=lambda row: -row[1])


def figures(profile: Profile) -> dict[str, "Figure"]:
    """Every figure of the page, by name."""
    return {"time": time_figure(profile), "roofline": roofline_figure(profile)}


def time_figure(profile: Profile) -> "Figure":
    """Milliseconds of a step's phases, and of the model's parts, forward and backward."""
    figure, (left, right) = new_figure(1, 2, width=4.6, height=3.2)
    phases = _largest(profile.phases)
    left.barh(range(len(phases)), [1e3 * value for _, value in phases], color=COLORS[0])
    name_rows(left, [name for name, _ in phases])
    left.set(xlabel="ms of a step", title="phases")
    parts = sorted(part_times(profile).items(), key=lambda row: -sum(row[1]))
    ends = np.zeros(len(parts))
    for way, (label, color) in enumerate((("forward", COLORS[0]), ("backward", COLORS[1]))):
        lengths = 1e3 * np.array([values[way] for _, values in parts])
        right.barh(range(len(parts)), lengths, left=ends, color=color, label=label)
        ends = ends + lengths
    name_rows(right, [name for name, _ in parts])
    right.set(xlabel="ms of a step, eager", title="parts of the model")
    right.legend(fontsize=8, loc="lower right")
    return figure


def roofline_figure(profile: Profile) -> "Figure":
    """FLOP/s over FLOPs a byte of the main operators, under what memory and products of this machine were measured to
    reach. A point's area is the operator's share of the time."""
    shown: list[OperatorCost] = [one for one in profile.main_operators() if one.flops and one.bytes]
    figure, axes = new_figure(width=7.4, height=4.6)
    ridge = profile.peak / profile.bandwidth
    low = min([0.03, *(one.intensity for one in shown)]) / 1.5
    high = max([10 * ridge, *(one.intensity for one in shown)]) * 1.5
    roof = np.array([low, ridge, high])
    axes.plot(roof, np.minimum(profile.peak, profile.bandwidth * roof), color="0.35", linewidth=1.4)
    axes.annotate(
        f"products: {profile.peak / 1e9:.3g} GFLOP/s", (high, profile.peak), xytext=(-4, 5), ha="right", fontsize=8.5,
        textcoords="offset points",
    )  # fmt: skip
    axes.annotate(
        f"memory: {profile.bandwidth / 1e9:.3g} GB/s", (low, profile.bandwidth * low), xytext=(6, 12), fontsize=8.5,
        textcoords="offset points",
    )  # fmt: skip
    total = sum(one.seconds for one in profile.operators)
    for number, one in enumerate(shown):
        color = COLORS[number % len(COLORS)]
        axes.scatter(one.intensity, one.speed, s=20 + 900 * one.seconds / total, color=color, alpha=0.6, linewidth=0)
        if number < 10:
            axes.annotate(
                f"{one.name} {one.seconds / total:.0%}", (one.intensity, one.speed), xytext=(7, -3), fontsize=8,
                textcoords="offset points", color=color,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte of input and output", ylabel="FLOP/s")
    return figure
