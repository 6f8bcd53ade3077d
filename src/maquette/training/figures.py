"""The pictures of one run: how the loss fell, and what else there is to see."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.objectives.held_out import metric_name
from maquette.reports.figures import COLORS, new_figure, save_figure
from maquette.statistics.intervals import Reliability
from maquette.training.record import RunRecord


def draw_loss(history: Sequence[dict[str, Any]], domains: Sequence[str], path: Path | str, *, title: str) -> Path:
    """Training loss and each domain's validation loss over tokens, as PNG and SVG; returns the PNG's path."""
    figure, axes = new_figure()
    training = [(row["tokens"], row["train/loss"]) for row in history if "train/loss" in row]
    axes.plot(*_columns(training), color="0.6", linewidth=1, label="training (mean of each interval)")
    for domain in domains:
        name = metric_name(domain, "loss")
        points = [(row["tokens"], row[name]) for row in history if name in row]
        axes.plot(*_columns(points), marker="o", markersize=3, linewidth=1.3, label=f"validation: {domain}")
    axes.set_xscale("log")
    axes.set_xlabel("tokens seen")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(title)
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def draw_curves(
    history: Sequence[dict[str, Any]], panels: Sequence[tuple[str, Sequence[str]]], path: Path | str, *, title: str
) -> Path:
    """A panel for each label of an axis and the curves in it, over optimiser steps; returns the PNG's path.

    Curves that were never recorded, and panels without any, are left out."""
    found = {
        label: {
            name: points for name in names if (points := [(row["step"], row[name]) for row in history if name in row])
        }
        for label, names in panels
    }
    shown = {label: curves for label, curves in found.items() if curves} or {"": {}}
    figure, axes = new_figure(1, len(shown), width=4.8, height=3.6)
    for axis, (label, curves) in zip(axes if len(shown) > 1 else [axes], shown.items(), strict=True):
        for name, points in curves.items():
            few = len(points) < 30
            axis.plot(*_columns(points), marker="o" if few else None, markersize=3, linewidth=1.3, label=name)
        axis.set_xlabel("optimiser steps")
        axis.set_ylabel(label)
        axis.legend(fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save_figure(figure, path)


def draw_reliability(bins: Reliability, path: Path | str, *, title: str) -> Path:
    """Probabilities that a reward model says, and how often they came true; returns the PNG's path."""
    figure, axes = new_figure(width=4.4, height=4.0)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    errors = 1.96 * np.sqrt(np.maximum(bins.came_true * (1 - bins.came_true), 1e-9) / bins.counts)
    axes.errorbar(bins.said, bins.came_true, yerr=errors, marker="o", markersize=4, linewidth=1.3, capsize=2,
                  label=f"held-out pairs (error {bins.error:.3f})")  # fmt: skip
    axes.set_xlabel("probability that the first answer is preferred, as said")
    axes.set_ylabel("share of pairs where it was (95% intervals)")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title(title)
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def draw_sizes(records: Sequence[RunRecord], path: Path | str) -> Path:
    """Held-out loss and token accuracy of fine-tuned models over how many examples they saw, a point a run and a line
    through the means of runs that differ only in their seed; returns the PNG's path."""
    figure, axes = new_figure(1, 2, width=4.8, height=3.6)
    labels = {"validation/loss": "held-out loss (nats per answer token)",
              "validation/token_accuracy": "held-out tokens that are the likeliest"}  # fmt: skip
    for axis, (name, label) in zip(axes, labels.items(), strict=True):
        found = [record for record in records if name in record.metrics]
        points = [(record.facts["train"]["examples"], record.metrics[name]) for record in found]
        axis.plot(*_columns(points), "o", markersize=5, alpha=0.6)
        sizes = sorted({size for size, _ in points})
        means = [np.mean([value for one, value in points if one == size]) for size in sizes]
        axis.plot(sizes, means, linewidth=1.3, color=COLORS[0])
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=30)
        axis.minorticks_off()
        axis.set_xlabel("examples for fine-tuning")
        axis.set_ylabel(label)
    figure.suptitle("What more examples are worth", x=0.01, ha="left", fontsize=11)
    return save_figure(figure, path)
