"""The picture of one run: how the loss fell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.figure import new_figure, save_figure
from maquette.training.judgement import metric_name


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
