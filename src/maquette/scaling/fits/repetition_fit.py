"""The law of repetition on one's own runs: what an epoch is worth."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.reports.figures import COLORS, new_figure
from maquette.scaling.fits.table import ALIASES, RunTable
from maquette.scaling.laws.fit import SurfaceFit, fit_surface
from maquette.scaling.laws.repetition import RepetitionFit, effective, fit_repetition
from maquette.scaling.laws.runs import Array, LawError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RepetitionResult:
    """The law, the surface of fresh data below it, and each run's distinct tokens (n,)."""

    fit: RepetitionFit
    surface: SurfaceFit
    unique: Array
    repeated: int
    notes: tuple[str, ...] = ()

    @property
    def worth_of_four(self) -> float:
        """Epochs of new tokens that four epochs are worth."""
        return float(effective(4.0, 1.0, self.fit.law.token_decay))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before it is trusted."""
        return (*self.surface.warnings, *self.fit.warnings, *self.notes)

    @property
    def words(self) -> str:
        """The law in a sentence."""
        low, high = self.fit.interval
        return (
            f"Repeated tokens wear out with r = {self.fit.law.token_decay:.1f} (90%: {low:.1f} to {high:.1f}): four "
            f"epochs are worth {self.worth_of_four:.2f} of new text."
        )


def fit_epochs(table: RunTable, *, bootstrap: int = 1000, seed: int = 0, level: float = 0.9) -> RepetitionResult:
    """Fits the surface to the runs that repeat nothing, then the decay of repeated tokens to those that do.

    Raises `LawError` where the table does not say how much text was distinct, or has too few runs of either kind.
    """
    unique = unique_tokens(table)
    repeats = table.tokens > 1.01 * unique
    fresh = table.take(~repeats)
    if not np.any(repeats):
        raise LawError(f"No run of {table.source} repeats its data.", "Train some for several epochs (corpus.limit).")
    surface = fit_surface(fresh.params, fresh.tokens, fresh.loss, bootstrap=0, seed=seed, level=level)
    rows = np.flatnonzero(repeats)
    fit = fit_repetition(
        table.params[rows], table.tokens[rows], unique[rows], table.loss[rows], surface.surface,
        bootstrap=bootstrap, seed=seed, level=level,
    )  # fmt: skip
    domains = [name for name in table.frame.columns if str(name).startswith("epochs/")]
    notes = (
        ("Runs with several domains: epochs are averaged over them as if all had one share.",)
        if len(domains) > 1
        else ()
    )
    return RepetitionResult(fit, surface, unique, int(repeats.sum()), notes)


def unique_tokens(table: RunTable) -> Array:
    """Distinct tokens of each run (n,): a column of that name, or from the epochs of its domains."""
    import pandas as pd

    plain = {"".join(c for c in str(name).lower() if c.isalnum()): name for name in table.frame.columns}
    for alias in ALIASES["unique"]:
        if alias in plain:
            return np.asarray(pd.to_numeric(table.frame[plain[alias]], errors="coerce"), float)
    epochs = [name for name in table.frame.columns if str(name).startswith("epochs/") or str(name).lower() == "epochs"]
    if not epochs:
        raise LawError(
            f"{table.source} does not say how many tokens were distinct.", "Give a column unique_tokens, or epochs."
        )
    passes = table.frame[epochs].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if passes.shape[1] > 1 and np.nanmax(passes) > 1:
        passes = np.nanmean(np.maximum(passes, 1), axis=1, keepdims=True)
    return np.asarray(table.tokens / np.maximum(passes[:, 0], 1))


def repetition_facts(result: RepetitionResult) -> dict[str, Any]:
    """The law as plain values."""
    surface = result.fit.law.surface
    return {
        "token_decay": result.fit.law.token_decay,
        "interval": [float(end) for end in result.fit.interval],
        "repeating_runs": result.repeated,
        "surface": {name: getattr(surface, name) for name in ("E", "A", "B", "alpha", "beta", "gamma")},
        "worth_of_four_epochs": result.worth_of_four,
        "warnings": list(result.warnings),
    }


def repetition_figure(result: RepetitionResult, table: RunTable) -> "Figure":
    """What so many passes over the same tokens are worth, in passes over fresh ones."""
    figure, axes = new_figure()
    most = max(16.0, 1.5 * float((table.tokens / result.unique).max()))
    epochs = np.geomspace(1, most, 100)
    ends = [effective(epochs, 1.0, decay) for decay in result.fit.interval]
    axes.plot(epochs, epochs, ":", color="gray", label="as if all were new")
    worth = effective(epochs, 1.0, result.fit.law.token_decay)
    axes.plot(epochs, worth, color=COLORS[0], label=f"fitted: r = {result.fit.law.token_decay:.1f}")
    axes.fill_between(epochs, *ends, color=COLORS[0], alpha=0.15, lw=0)
    axes.plot(epochs, effective(epochs, 1.0, 15.39), "--", color=COLORS[1], label="Muennighoff et al. 2023: r = 15.4")
    axes.set(xscale="log", yscale="log", xlabel="epochs D / U", ylabel="worth in epochs of new tokens")
    axes.set_title("What repeated tokens are worth")
    axes.legend()
    return figure
