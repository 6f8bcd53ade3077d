"""What a run shows of itself: its model card, and the pictures of how it learned."""

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.objectives.held_out import metric_name
from maquette.recipe.objectives import entry_of
from maquette.reports import render
from maquette.reports.figures import COLORS, curve, name_rows, new_figure, save_figure
from maquette.statistics.intervals import Reliability
from maquette.training.energy import energy_words
from maquette.training.record import RunRecord

_MEASURED = (
    ("validation/loss", "validation loss"),
    ("validation/token_accuracy", "token accuracy"),
    ("validation/accuracy", "chosen completion preferred"),
    ("validation/calibration_error", "expected calibration error"),
    ("validation/gold", "gold reward of a completion"),
    ("validation/reward", "learned reward of a completion"),
    ("validation/kl", "KL from the reference on held-out prompts, nats per completion"),
    ("validation/words", "words of a completion, on average"),
    ("objective/kl", "KL from the reference on its rollouts, nats per completion"),
    ("completions/mean_length", "tokens of a completion, on average"),
    ("completions/eos_rate", "share of completions that end by themselves"),
)
"""What a card says of a run that did not train on text, where it was measured."""


def model_card(record: RunRecord, mixture: Mapping[str, float] | None = None) -> str:
    """Markdown with a Hugging Face header: size, data, compute, measurements, lineage. `mixture`: shares of domains."""
    entry = entry_of(record.spec.objective)
    known = (
        [] if record.domains else [(label, record.metrics[name]) for name, label in _MEASURED if name in record.metrics]
    )
    energy = None if record.energy is None else energy_words(record.energy)
    shown = {"title": entry.title, "scalar": entry.scalar, "mixture": mixture or {}, "energy": energy}
    return render("model_card.md.j2", {"record": record, "spec": record.spec, "measured": known, **shown})


def without_front_matter(card: str) -> str:
    """A card as people read it: without the header that is for Hugging Face."""
    return re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL).strip()


def draw_loss(history: Sequence[dict[str, Any]], domains: Sequence[str], path: Path | str, *, title: str) -> Path:
    """Training loss and each domain's validation loss over tokens, as PNG and SVG; returns the PNG's path."""
    figure, axes = new_figure()
    axes.plot(
        *curve(history, "tokens", "train/loss"), color="0.6", linewidth=1, label="training (mean of each interval)"
    )
    for domain in domains:
        points = curve(history, "tokens", metric_name(domain, "loss"))
        axes.plot(*points, marker="o", markersize=3, linewidth=1.3, label=f"validation: {domain}")
    axes.set(xscale="log", xlabel="tokens seen", ylabel="loss (nats per token)", title=title)
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def draw_curves(
    history: Sequence[dict[str, Any]],
    panels: Sequence[tuple[str, Sequence[str]]],
    path: Path | str,
    *,
    title: str,
    rows: int = 1,
) -> Path:
    """A panel for each label of an axis and the curves in it, over optimiser steps; returns the PNG's path.

    Curves that were never recorded are left out, and in a figure of one row panels without any."""
    figures = {
        label: {name: points for name in names if (points := curve(history, "step", name))[0]}
        for label, names in panels
    }
    shown = {label: curves for label, curves in figures.items() if curves or rows > 1} or {"": {}}
    columns = len(shown) // rows
    figure, axes = new_figure(rows, columns, width=4.8, height=3.6 if rows == 1 else 3.2)
    for axis, (label, curves) in zip(np.ravel(axes), shown.items(), strict=True):
        for name, points in curves.items():
            few = len(points[0]) < 30
            axis.plot(*points, marker="o" if few else None, markersize=3, linewidth=1.3, label=name)
        axis.set(xlabel="optimiser steps", ylabel=label)
        if curves:
            axis.legend(fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save_figure(figure, path)


def draw_reliability(bins: Reliability, path: Path | str, *, title: str) -> Path:
    """Probabilities that a reward model says, and how often they held; returns the PNG's path."""
    figure, axes = new_figure(width=4.4, height=4.0)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfectly calibrated")
    errors = 1.96 * np.sqrt(np.maximum(bins.observed * (1 - bins.observed), 1e-9) / bins.counts)
    axes.errorbar(bins.predicted, bins.observed, yerr=errors, marker="o", markersize=4, linewidth=1.3, capsize=2,
                  label=f"held-out pairs (error {bins.error:.3f})")  # fmt: skip
    axes.set_xlabel("predicted probability that the first completion is preferred")
    axes.set_ylabel("observed share of pairs (95% intervals)")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_title(title)
    axes.legend(fontsize=8)
    return save_figure(figure, path)


def draw_sizes(records: Sequence[RunRecord], path: Path | str) -> Path:
    """Held-out loss and token accuracy of fine-tuned models over how many examples they saw, a point a run and a line
    through the means of runs that differ only in their seed; returns the PNG's path."""
    figure, axes = new_figure(1, 2, width=4.8, height=3.6)
    labels = {"validation/loss": "held-out loss (nats per completion token)",
              "validation/token_accuracy": "held-out tokens that are the likeliest"}  # fmt: skip
    for axis, (name, label) in zip(axes, labels.items(), strict=True):
        shown = [record for record in records if name in record.metrics]
        points = [(record.facts["train"]["examples"], record.metrics[name]) for record in shown]
        axis.plot(*zip(*points, strict=True), "o", markersize=5, alpha=0.6)
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


def draw_precisions(records: Sequence[RunRecord], path: Path | str) -> Path:
    """Validation loss and tokens a second of runs in each number format, a point a run; returns the PNG's path."""
    figure, axes = new_figure(1, 2, width=4.4, height=2.6)
    precisions = list(dict.fromkeys(record.spec.precision for record in records))
    for axis, name, label in zip(axes, ("validation_loss", "tokens_per_second"), ("validation loss", "tokens/s"),
                                 strict=True):  # fmt: skip
        for size, color in zip(sorted({record.spec.size for record in records}), itertools.cycle(COLORS), strict=False):
            points = [(getattr(one, name), precisions.index(one.spec.precision)) for one in records
                      if one.spec.size == size]  # fmt: skip
            axis.plot(
                *zip(*points, strict=True), "o", markersize=6, alpha=0.7, color=color, label=f"{size:,.0f} parameters"
            )
        name_rows(axis, precisions)
        axis.set_xlabel(label)
    axes[0].legend(fontsize=8)
    return save_figure(figure, path)
