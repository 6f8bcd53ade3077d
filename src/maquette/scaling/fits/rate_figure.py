"""The picture of a learning-rate sweep: loss over rate, a curve for each width, its best rate marked.

With the standard recipe the best rates step to the left as the model grows wider; under muP they stand above one
another (Yang et al. 2022, figure 1), which is what makes a small model's rate good for a large one.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from maquette.reports.figures import new_figure
from maquette.scaling.laws.minimum import curve_minimum
from maquette.scaling.laws.runs import positive_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class BestRate(NamedTuple):
    """The best learning rate at one width, and the loss there. `edge`: `smallest` or `largest` where the loss still
    falls at that end of what was tried, else empty."""

    width: int
    rate: float
    loss: float
    edge: str


def best_rates(width: ArrayLike, rate: ArrayLike, loss: ArrayLike) -> list[BestRate]:
    """The minimum of each width's curve, by a parabola in log-log. Columns (n,), one run each.

    Widths with fewer than three rates are left out. Raises `LawError` for columns that can't be.
    """
    widths, rates, losses = positive_columns(width=width, rate=rate, loss=loss)
    found = []
    for at in np.unique(widths):
        rows = widths == at
        if len(np.unique(rates[rows])) < 3:
            continue
        order = np.argsort(rates[rows])
        minimum = curve_minimum(np.log(rates[rows][order]), np.log(losses[rows][order]))
        found.append(BestRate(int(at), float(np.exp(minimum.x)), float(np.exp(minimum.y)), minimum.edge))
    return found


def drift(best: list[BestRate]) -> float:
    """Exponent of the best rate in the width: about -1 where rates must follow the width, 0 where they stay put.

    Widths whose best is at an edge say nothing; nan with fewer than two others.
    """
    inner = [one for one in best if not one.edge]
    if len(inner) < 2:
        return float("nan")
    return float(np.polyfit(np.log([one.width for one in inner]), np.log([one.rate for one in inner]), 1)[0])


def draw_rates(width: ArrayLike, rate: ArrayLike, loss: ArrayLike, *, title: str = "") -> "Figure":
    """Loss over learning rate (logarithmic), a curve for each width; its minimum is a ring."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    widths, rates, losses = positive_columns(width=width, rate=rate, loss=loss)
    figure, axes = new_figure(width=6.0)
    best = {one.width: one for one in best_rates(widths, rates, losses)}
    for index, at in enumerate(np.unique(widths)):
        rows = np.flatnonzero(widths == at)
        rows = rows[np.argsort(rates[rows])]
        axes.plot(rates[rows], losses[rows], "o-", color=f"C{index}", markersize=4, label=f"{at:.0f} wide")
        if (one := best.get(int(at))) is not None and not one.edge:
            axes.plot(one.rate, one.loss, "o", markersize=11, markerfacecolor="none", color=f"C{index}")
    exponent = drift(list(best.values()))
    moves = "" if np.isnan(exponent) else f"best rate ~ width^{exponent:+.2f}"
    axes.set(xscale="log", xlabel="peak learning rate", ylabel="validation loss (nats per token)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(", ".join(part for part in (title, moves) if part), loc="left")
    axes.legend()
    return figure
