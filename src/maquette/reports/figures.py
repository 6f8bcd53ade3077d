"""Figures in one style, written as PNG and SVG."""

import contextlib
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

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


def size_colors(count: int) -> Any:
    """Colours `(count, 4)` of an ordered scale, for the smallest to the largest: seen on white and on black alike."""
    import matplotlib
    import numpy as np

    return matplotlib.colormaps["viridis"](np.linspace(0.2, 0.85, count))


def finish(figure: "Figure") -> None:
    """What matplotlib asks its settings for only when legends, titles and ticks are made, which is after
    `new_figure`: legends without a box around them, titles to the left, pale grid lines, and of a logarithmic axis no
    more labels than there is room for."""
    for axes in figure.axes:
        if title := axes.get_title():
            axes.set_title("")
            axes.set_title(title, loc="left", fontsize=_STYLE["axes.titlesize"])
        if legend := axes.get_legend():
            legend.get_frame().set_linewidth(0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_tick_params(which="both", grid_alpha=_STYLE["grid.alpha"])
            _thin_labels(axis)


@contextlib.contextmanager
def narrowed(figure: "Figure") -> Iterator[bool]:
    """The figure at a width of `_NARROW` inches a panel while this is open, its titles and labels in lines that fit.
    Yields whether it is another figure then: not where it is as narrow already, or a panel has no room left."""
    width, height = (float(side) for side in figure.get_size_inches())
    grids = [place.get_gridspec() for axes in figure.axes if (place := axes.get_subplotspec()) is not None]
    columns = max((grid.ncols for grid in grids), default=1)
    if width <= _NARROW * columns * 1.1:
        yield False
        return
    texts = [text for axes in figure.axes for text in _texts(axes)]
    before = [text.get_text() for text in texts]
    figure.set_size_inches(_NARROW * columns, height)
    try:
        for text in texts:
            text.set_text(_broken(text.get_text(), _NARROW if text.get_rotation() == 0 else height))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                figure.draw_without_rendering()
                widths = [axes.get_position().width for axes in figure.axes if axes.get_subplotspec() is not None]
                fits = min(widths, default=1) * _NARROW * columns > 1.2
            except UserWarning:  # no room for the axes
                fits = False
        yield fits
    finally:
        figure.set_size_inches(width, height)
        for text, words in zip(texts, before, strict=True):
            text.set_text(words)


_NARROW = 4.2
"""Inches of a panel on a phone, where text of 8 points is 9 pixels high."""


def _texts(axes: "Axes") -> tuple["Text", ...]:
    title = axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=_STYLE["axes.titlesize"])
    return title, axes.xaxis.label, axes.yaxis.label


def _broken(text: str, inches: float) -> str:
    """Words in lines of at most so many inches, in text of 11 points."""
    return "\n".join(textwrap.wrap(text, int(9.6 * inches), break_long_words=False))


def _thin_labels(axis: Any) -> None:
    """Labels few of the ticks between powers of ten, where matplotlib would label more than fit beside each other."""
    from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, NullFormatter

    formatter = axis.get_minor_formatter()
    if axis.axis_name != "x" or type(formatter) is not LogFormatterSciNotation:
        return
    low, high = sorted(axis.get_view_interval())
    if high > 15 * low:
        axis.set_minor_formatter(NullFormatter())
    else:
        labelled = "25" if high > 2.5 * low else "2468"
        axis.set_minor_formatter(FuncFormatter(lambda x, at: formatter(x, at) if f"{x:e}"[0] in labelled else ""))


def save_figure(figure: "Figure", path: Path | str) -> Path:
    """Writes `path`.png (150 dpi) and `path`.svg atomically; returns the PNG's path."""
    import matplotlib

    path = Path(path)
    finish(figure)
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


def plain_ticks(axis: Any) -> None:
    """Numbers rather than powers of ten on a logarithmic axis: losses span less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())
