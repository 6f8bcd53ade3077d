"""Figures in one style, written as PNG and SVG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#1f5fa8", "#d1495b", "#2e8b57", "#e09f3e", "#6b4c9a", "#4a4e69", "#00798c", "#b56576")

_STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "maquette",
}


def new_figure(rows: int = 1, columns: int = 1, *, width: float = 6.4, height: float = 4.0) -> tuple["Figure", Any]:
    """A figure and its axes (as `plt.subplots`), `width` x `height` inches a panel, without touching pyplot's state."""
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLORS)}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns)


def save_figure(figure: "Figure", path: Path | str) -> Path:
    """Writes `path`.png (150 dpi) and `path`.svg atomically; returns the PNG's path."""
    import matplotlib

    path = Path(path)
    with matplotlib.rc_context({"svg.hashsalt": "maquette"}):
        for suffix, extra in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 150})):
            with atomic_file(path.with_suffix(suffix)) as temporary:
                figure.savefig(temporary, format=suffix[1:], **extra)
    return path.with_suffix(".png")


def curve(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> tuple[list[float], list[float]]:
    """The points of a curve: of the rows that have a `y`, that and `x`."""
    known = [row for row in rows if y in row]
    return [row[x] for row in known], [row[y] for row in known]


def draw_intervals(
    axes: "Axes", places: Sequence[float], points: Sequence[tuple[float, float, float]], color: str, **dots: Any
) -> None:
    """A line from low to high of each of `points` (value, low, high), in a row each, and a dot at its value."""
    for place, (_, low, high) in zip(places, points, strict=True):
        axes.plot([low, high], [place, place], color=color, linewidth=1.6)
    axes.plot([value for value, _, _ in points], places, "o", color=color, **({"markersize": 5} | dots))


def name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Names the rows 0, 1, ... of a figure, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_law(
    axes: "Axes", x: Any, law: Any, color: str, label: str, *, level: float = 0.9, band: str | None = None
) -> None:
    """A fitted power law over `x (n,)` with the band of its intervals, which two points do not have."""
    axes.plot(x, law.law.value(x), color=color, label=label)
    low, high = zip(*(law.predict(float(at), level).interval for at in x), strict=True)
    if all(map(math.isfinite, (*low, *high))):
        axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0, label=band)
