"""L(N) while text is plenty, and L(D) while the model is large: Kaplan et al. 2020, equations 1.1 and 1.2.

    maquette train -m +sweep=grid; maquette fit runs=grid laws=size_and_tokens

Of a grid of sizes and tokens each row is a law of the size, each column one of the tokens. None has all the text or all
the size there could be, so each is fitted at every value of the other quantity: what limits the law shows in how its
exponent still grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.reports import quantity
from maquette.reports.figures import COLORS, draw_law, new_figure, size_colors
from maquette.reports.tables import span
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.power_law import PowerLawFit, fit_power_law
from maquette.scaling.laws.runs import Array, LawError, group_budgets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED = {"N": 0.076, "D": 0.095}
"""Kaplan et al. 2020, equations 1.1 and 1.2, with N of the core."""

_NAMES = {"N": "parameters", "D": "tokens"}
_FEWEST = 3
_GROWING = 0.1
"""An exponent that the last step of the other quantity raises by more than this share is still limited by it."""


@dataclass(frozen=True)
class SingleLaw:
    """The loss as a power law of `axis` (N or D) alone: by the value of the other quantity its fit, ascending, and the
    points (m,) that it goes through (means over seeds)."""

    axis: str
    fits: Mapping[float, PowerLawFit]
    points: Mapping[float, tuple[Array, Array]]

    @property
    def held(self) -> float:
        """The largest value of the other quantity: where the law is least limited by it."""
        return max(self.fits)

    @property
    def fit(self) -> PowerLawFit:
        return self.fits[self.held]

    @property
    def still_growing(self) -> bool:
        """Whether the exponent still grows with the other quantity, so that more of it would give another law."""
        exponents = [-fit.exponent for fit in self.fits.values()]
        return len(exponents) > 1 and exponents[-1] > (1 + _GROWING) * exponents[-2]

    @property
    def other(self) -> str:
        """The other quantity in words."""
        return _NAMES["D" if self.axis == "N" else "N"]

    @property
    def words(self) -> str:
        """The law in a sentence."""
        return (
            f"At {quantity(self.held)} {self.other} L({self.axis}) ~ {self.axis}^{self.fit.exponent:.3f} "
            f"({span(self.fit.interval['exponent'])})."
        )


@dataclass(frozen=True)
class SingleLaws:
    """Both laws of one table."""

    size: SingleLaw
    tokens: SingleLaw
    level: float
    convention: str

    @property
    def both(self) -> tuple[SingleLaw, SingleLaw]:
        return self.size, self.tokens

    @property
    def words(self) -> str:
        """Both laws, beside the published ones."""
        counted = "core and head" if self.convention == "exact" else "the core"
        return (
            f"{self.size.words} {self.tokens.words} Kaplan et al. 2020 give -{PUBLISHED['N']} and -{PUBLISHED['D']} "
            f"for models of 1k to 1.5B parameters of the core (here N counts {counted})."
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Where a law is not alone yet."""
        growing = [
            f"The exponent of {law.axis} still grows with the {law.other}: it is not the law of {law.axis} alone yet."
            for law in self.both
            if law.still_growing
        ]
        few = [
            f"L({law.axis}) rests on {len(law.points[law.held][0])} points."
            for law in self.both
            if len(law.points[law.held][0]) < _FEWEST + 1
        ]
        return (*growing, *few)


def fit_single_laws(table: RunTable, level: float = 0.9) -> SingleLaws:
    """Both laws, of a table with at least three sizes at one number of tokens and three numbers of tokens at one size.

    Raises `LawError` where there are no such runs.
    """
    size = _single("N", table.params, table.tokens, table.loss, level)
    tokens = _single("D", table.tokens, table.params, table.loss, level)
    return SingleLaws(size, tokens, level, table.convention)


def _single(axis: str, x: Array, other: Array, loss: Array, level: float) -> SingleLaw:
    places, groups = group_budgets(x), group_budgets(other)
    fits, points = {}, {}
    for value in np.unique(groups):
        here = groups == value
        at = np.unique(places[here])
        if len(at) < _FEWEST:
            continue
        log_x, log_loss = (
            np.array([np.log(column[here & (places == place)]).mean() for place in at]) for column in (x, loss)
        )
        points[float(value)] = np.exp(log_x), np.exp(log_loss)
        fits[float(value)] = fit_power_law(*points[float(value)], level=level)
    if not fits:
        held = _NAMES["D" if axis == "N" else "N"]
        raise LawError(
            f"L({axis}) alone needs {_FEWEST} values of {axis} at one number of {held}.",
            "Train a grid: maquette train -m +sweep=grid.",
        )
    return SingleLaw(axis, fits, points)


def single_facts(laws: SingleLaws) -> dict[str, Any]:
    """Both laws as plain values."""
    facts: dict[str, Any] = {"level": laws.level, "warnings": list(laws.warnings)}
    for law in laws.both:
        facts[f"L({law.axis})"] = [
            {"held": held, "coefficient": fit.coefficient, "exponent": fit.exponent,
             "interval": [float(end) if np.isfinite(end) else None for end in fit.interval["exponent"]],
             "points": len(law.points[held][0])}
            for held, fit in law.fits.items()
        ]  # fmt: skip
    return facts


def single_figure(laws: SingleLaws) -> "Figure":
    """Loss over N at each number of tokens, and over D at each size; the law at the largest of the other."""
    from matplotlib.ticker import NullFormatter

    figure, panels = new_figure(1, 2, width=5.2, height=5.0)
    for axes, law in zip(panels, laws.both, strict=True):
        colors = size_colors(len(law.points))[::-1]
        for (held, (x, loss)), color in zip(law.points.items(), colors, strict=True):
            last = held == law.held
            axes.plot(x, loss, "o" if last else "o-", color=color, ms=4, lw=1, label=f"{quantity(held)} {law.other}")
        x, _ = law.points[law.held]
        fine = np.geomspace(x[0] / 1.3, x[-1] * 1.3, 40)
        label = f"L ~ {law.axis}^{law.fit.exponent:.3f} ({laws.level:.0%}: {span(law.fit.interval['exponent'])})"
        draw_law(axes, fine, law.fit, COLORS[1], label, level=laws.level)
        shown = np.concatenate([loss for _, loss in law.points.values()])
        axes.set(xscale="log", yscale="log", xlabel=f"{_NAMES[law.axis]} {law.axis}", ylabel="loss (nats per token)")
        axes.set_ylim(0.97 * shown.min(), 1.03 * shown.max())
        ticks = np.round(np.geomspace(shown.min(), shown.max(), 5), 1)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"L({law.axis}) alone")
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.18))  # it hides no line
    return figure
