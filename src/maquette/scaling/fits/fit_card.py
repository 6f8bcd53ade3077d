"""The card of a fit: what its runs recorded of themselves, and said of itself (reports/templates/fit_card.html.j2).

What the runs did not record is said to be missing.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from maquette.reports import quantity
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.fit import CARRIED, STARTS

UNKNOWN = "not recorded in these runs"

_FORMULAS = {
    "plateau": "ln L = -1/m ln[(E + (A/N^alpha + B/D^beta)^gamma)^-m + H^-m], with priors and weights",
    "kinds": "L = sum of share L of each kind of token, each by plateau; hits times e^(-3.3 copying score)",
    "minima": "ln L = ln L*(C) + k/2 (ln N - ln N*(C))^2, L* and N* power laws in C",
    "additive": "L = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022)",
    "kaplan": "L = (A/N^alpha + B/D)^gamma (Kaplan et al. 2020)",
    "general": "L = E + (A/N^alpha + B/D^beta)^gamma",
}


@dataclass(frozen=True)
class FitCard:
    """The answers on a fit that have to be worked out."""

    fit: SweepFit
    starts: ClassVar[int] = STARTS
    carried: ClassVar[int] = CARRIED

    @property
    def formulas(self) -> dict[str, str]:
        """Every form that was fitted, as a formula."""
        own = {name: fitted.custom.form.formula for name, fitted in self.fit.comparison.fits.items() if fitted.custom}
        return {name: own.get(name) or _FORMULAS[name] for name in self.fit.forms}

    @property
    def formulas_compared(self) -> str:
        return "; ".join(f"{name}: {formula}" for name, formula in self.formulas.items())

    @property
    def compute_is_exact(self) -> bool:
        """Whether FLOPs were counted, and are not 6 N D."""
        table = self.fit.table
        return table.convention == "exact" and not any("6 N D" in note for note in table.notes)

    @property
    def range(self) -> str:
        """From where to where the runs go."""
        table = self.fit.table
        columns = (("N", table.params), ("D", table.tokens), ("C", table.compute))
        return ", ".join(f"{name} {quantity(values.min())} to {quantity(values.max())}" for name, values in columns)

    @property
    def repetition(self) -> str:
        """What is said of epochs; empty where nothing is known."""
        return next((one.words for one in self.fit.confounders if one.name == "epochs"), "")

    @property
    def grid(self) -> str:
        """How many runs each budget has."""
        budgets, counts = np.unique(self.fit.table.budget, return_counts=True)
        grid = ", ".join(f"{budget:.2g} FLOPs: {count}" for budget, count in zip(budgets, counts, strict=True))
        return f"{len(budgets)} budgets ({grid})"

    @property
    def left_out(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in self.fit.table.left_out)

    @property
    def tested(self) -> str:
        """How the form to predict with did at larger budgets than those that it was fitted to."""
        return "; ".join(
            f"at {row.reach:g} times the compute {row.error:+.1%} mean error over {row.runs} runs, {row.covered:.0%} "
            "of them inside their interval"
            for row in (*self.fit.predictor.scores, *self.fit.comparison.scores)
            if row.form == self.fit.form
        )

    def recorded(self, *names: str, unit: str = "") -> str:
        """The values of settings over all runs, each one value, a range or a list."""
        frame = self.fit.table.frame
        texts = []
        for name in names:
            column = next((one for one in (name, f"params.{name}") if one in frame and frame[one].notna().any()), None)
            if column is not None:
                label = name.removeprefix("tags.").rpartition(".")[2] if len(names) > 1 else ""
                texts.append(f"{label} {_shown(list(frame[column].dropna()))}{unit}".strip())
        return ", ".join(texts) or UNKNOWN


def _shown(values: list[Any]) -> str:
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        only = str(distinct[0])
        return only[:12] if len(only) == 64 else f"{distinct[0]:g}" if isinstance(distinct[0], float) else only
    if all(isinstance(value, int | float) for value in distinct):
        return f"{min(distinct):.3g} to {max(distinct):.3g}"
    return " / ".join(str(value) for value in distinct[:4]) + (" ..." if len(distinct) > 4 else "")
