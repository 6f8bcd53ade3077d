"""The figures of a study: frontier, over-optimisation, length, rounds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import ConfigError, StageError
from maquette.feedback.early_warning import WatchedRun
from maquette.feedback.overoptimisation import OveroptimisationCurve, fit_overoptimisation
from maquette.feedback.study.measurement import Measurement, PolicyResult
from maquette.reports.figures import COLORS, new_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ValidationCurve = Sequence[tuple[float, float, float]]
"""(KL divergence, gold reward, learned reward) at each validation of a run, the first before its first step."""


def draw_frontier(measurement: Measurement) -> "Figure":
    """Gold and learned reward over the KL divergence from the reference, d = sqrt(KL) as Gao et al. 2022 draw it: of
    the reference and every policy after it (what it began at is hundreds of nats away), and the curve of best-of-n."""
    first = [one.name for one in measurement.policies].index(measurement.reference)
    learned = [name for name in measurement.policies[0].scores if name != "gold"][:1]
    names = ["gold", *learned]
    figure, axes = new_figure(1, len(names), width=5.4, height=4.0)
    for panel, name in zip(np.atleast_1d(axes), names, strict=True):
        for color, (kind, policies) in zip(COLORS, _by_kind(measurement.policies[first:]).items(), strict=False):
            _draw_points(panel, policies, name, kind, color)
        for curve in measurement.best_of_n[:1]:
            panel.plot(np.sqrt(curve.kl), curve.scores[name], "--", color="0.3", linewidth=1, label="best of n")
            for n, kl, score in zip(curve.n, curve.kl, curve.scores[name], strict=True):
                panel.annotate(str(n), (kl**0.5, score), fontsize=9, xytext=(2, 3), textcoords="offset points")
        panel.set_xlabel(f"√KL from {measurement.reference} (√nats per completion)")
        panel.set_ylabel(f"{'gold' if name == 'gold' else 'learned'} reward per completion")
        panel.set_title("What it is worth" if name == "gold" else "What it was optimised for")
        panel.legend(fontsize=9)
    return figure


def draw_overoptimisation(
    curves_by_policy: Mapping[str, ValidationCurve], measurement: Measurement
) -> tuple["Figure", dict[str, OveroptimisationCurve]]:
    """Gold and learned reward gained as policies move away, one colour a reward model: validations of runs, best-of-n,
    and the curves of Gao et al. 2022 fitted to the gold reward with 90% bands. Returns the curves by name.

    A gain is measured from the policy's own start, measured on the same prompts with the same random numbers. Raises
    `StageError` for a run that was not measured there."""
    figure, (left, middle, right) = new_figure(1, 3, width=5.0, height=4.2)
    fits: dict[str, OveroptimisationCurve] = {}
    for color, (name, validations) in zip(COLORS, curves_by_policy.items(), strict=False):
        distance, gold, learned = gains(name, validations)
        _draw_course(left, distance, gold, "rl", name, color, fits)
        middle.plot(distance, learned, "o-", color=color, markersize=4, linewidth=1.2, label=name)
    left.set_title("Reinforcement learning: what it is worth")
    middle.set_title("What it was optimised for")
    for color, curve in zip(COLORS, measurement.best_of_n, strict=False):
        distance, gold = np.sqrt(curve.kl), np.array(curve.scores["gold"])
        _draw_course(right, distance, gold - gold[0], "best_of_n", curve.reward, color, fits)
    right.set_title("Best of n")
    for axes, whose in ((left, "gold"), (middle, "learned"), (right, "gold")):
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set_xlabel("√KL from the reference (√nats)")
        axes.set_ylabel(f"{whose} reward gained per completion")
        axes.legend(fontsize=9)
    return figure, fits


def gains(
    name: str, validations: ValidationCurve
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """sqrt(KL), and gold and learned reward less those of the start, at each validation of the run `name`: `(n,)` each,
    0 at the first. Raises `StageError` where the validations does not begin at KL divergence 0."""
    if not validations or validations[0][0] != 0:
        raise StageError(
            f"{name} was not measured before its first step, so what it gained is not known.",
            "Train it again with force=true.",
        )
    kl, gold, learned = np.array(validations, dtype=float).T
    return np.sqrt(np.maximum(kl, 0)), gold - gold[0], learned - learned[0]


def draw_signals(runs: Sequence[WatchedRun]) -> "Figure":
    """A panel for each policy: gold reward, and every signal as a share of its highest, over iterations; a dotted line
    where gold has fallen for good. Raises `StageError` where no policy was validated twice."""
    if not (shown := [run for run in runs if len(run.gold) > 1]):
        raise StageError("No policy has signals: none was validated twice.", "Raise ppo.num_validations.")
    figure, panels = new_figure(1, len(shown), width=4.8, height=4.2)
    colors = dict(zip(dict.fromkeys(name for run in shown for name in run.signals), COLORS, strict=False))
    lines: dict[str, Artist] = {}
    for axes, run in zip(np.atleast_1d(panels), shown, strict=True):
        places = np.arange(1, len(run.gold) + 1)
        (lines["gold reward"],) = axes.plot(places, run.gold, color="0.1", linewidth=2.2)
        for name, color in colors.items():
            if (signal := run.signals.get(name)) is not None:
                share = signal / max(float(np.nanmax(np.abs(signal))), 1e-9)
                (lines[name],) = axes.plot(places, share, color=color, linewidth=1)
        if run.falls is not None:
            axes.axvline(places[run.falls], color="0.3", linestyle=":")
        axes.set(xlabel="validation", title=run.policy, ylim=(-1.1, 1.1))
    np.atleast_1d(panels)[-1].legend(
        lines.values(), lines, fontsize=9, loc="upper left", bbox_to_anchor=(-0.1, -0.15), ncols=2, frameon=False
    )
    return figure


def draw_length(measurement: Measurement) -> "Figure":
    """Words per completion, and win rates against the reference: by the first learned reward, and by gold."""
    figure, (left, right) = new_figure(1, 2, width=5.2, height=3.8)
    policies = measurement.policies
    places = np.arange(len(policies))
    left.barh(places, [one.words for one in policies], color=COLORS[0])
    left.set_yticks(places, [one.name for one in policies], fontsize=9)
    left.invert_yaxis()
    left.set_xlabel("words per completion")
    left.set_title("Length")
    learned = [name for name in policies[0].wins if name != "gold"]
    for offset, color, name in zip((-0.18, 0.18), (COLORS[1], COLORS[2]), [*learned[:1], "gold"], strict=False):
        points = [one.wins[name] for one in policies]
        right.barh(places + offset, [100 * point.value for point in points], height=0.34, color=color,
                   label=f"by {name}")  # fmt: skip
        errors = np.array([[p.value - p.low, p.high - p.value] for p in points]).T * 100
        right.errorbar([100 * p.value for p in points], places + offset, xerr=errors, fmt="none", ecolor="0.2")
    right.axvline(50, color="0.4", linewidth=0.8)
    right.set_yticks(places, [one.name for one in policies], fontsize=9)  # below the other where the page is narrow
    right.invert_yaxis()
    right.set_xlabel(f"win rate against {measurement.reference} (%)")
    right.set_title("Who wins")
    right.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderaxespad=0.1)
    return figure


def draw_bars(measurement: Measurement) -> "Figure":
    """Gold reward of every policy, sampled and greedy, with intervals: rounds and methods side by side."""
    figure, axes = new_figure(width=6.8, height=0.5 + 0.42 * len(measurement.policies))
    places = np.arange(len(measurement.policies))
    for offset, color, label, table in ((-0.18, COLORS[0], "T = 1", "scores"), (0.18, COLORS[3], "greedy", "greedy")):
        points = [getattr(one, table)["gold"] for one in measurement.policies]
        errors = np.array([[p.value - p.low, p.high - p.value] for p in points]).T
        axes.barh(places + offset, [p.value for p in points], height=0.34, color=color, label=label, xerr=errors)
    axes.set_yticks(places, [one.name for one in measurement.policies], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("gold reward per completion, 95% intervals")
    axes.legend(fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return figure


def _draw_course(
    axes: "Axes", distance: Any, gain: Any, kind: str, name: str, color: str, fits: dict[str, OveroptimisationCurve]
) -> None:
    axes.plot(distance, gain, "o", color=color, markersize=4, label=name)
    try:
        fit = fits[f"{name}, {kind}"] = fit_overoptimisation(distance, gain, kind)
    except ConfigError:
        return  # too few points for a curve: they stand for themselves
    grid = np.linspace(0, float(max(distance)), 120)
    low, high = fit.band(grid)
    axes.plot(grid, fit.gain(grid), "-", color=color, linewidth=1.2)
    axes.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)


def _draw_points(axes: "Axes", policies: Sequence[PolicyResult], name: str, kind: str, color: str) -> None:
    ordered = sorted(policies, key=lambda one: one.kl)
    points = [one.scores[name] for one in ordered]
    errors = np.array([[p.value - p.low, p.high - p.value] for p in points]).T
    axes.errorbar(
        [max(one.kl, 0.0) ** 0.5 for one in ordered], [p.value for p in points], yerr=errors,
        fmt="o-" if len(points) > 1 else "o", color=color, markersize=5, capsize=2, linewidth=1, label=kind,
    )  # fmt: skip


def _by_kind(policies: Sequence[PolicyResult]) -> dict[str, list[PolicyResult]]:
    kinds: dict[str, list[PolicyResult]] = {}
    for one in policies:
        kinds.setdefault(one.kind, []).append(one)
    return kinds
