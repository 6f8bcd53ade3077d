"""What may bend a law: the confounders that a table of runs can be asked about.

A law that holds from run to run can still miss the next decade, where something changes that it does not know of:
copying from the context sets in, text repeats itself, depth or batch change along the family, the recipe's learning
rate suits one end better than the other. Each is reported with its range, and tested: do the runs' distances from
the law go with it?
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from maquette.scaling.fits.recipe_cost import RungCost, cost_words, is_uneven
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.regimes import COPIES
from maquette.scaling.laws.runs import Array

_TESTED = {
    "model.num_hidden_layers": "layers",
    "data.batch_size_tokens": "batch in tokens",
    "steps": "optimiser steps",
}


@dataclass(frozen=True)
class Confounder:
    """`range`: its least and greatest value over the runs. `p_value`: of rank correlation with the law's residuals,
    nan where it was not tested. `alarming`: a reader should know before trusting the law. `words`: all in a sentence.
    """

    name: str
    range: tuple[float, float]
    p_value: float
    alarming: bool
    words: str


def copying_kinds(copying: Array | None) -> NDArray[np.str_] | None:
    """A kind for each run, "copies" or "does not copy yet"; None where all are of one kind or nothing was measured."""
    if copying is None:
        return None
    kinds = np.where(copying >= COPIES, "copies", "does not copy yet")
    return kinds if len(np.unique(kinds)) > 1 else None


def find_confounders(
    table: RunTable,
    residuals: Array,
    corpus: Mapping[str, Any] | None = None,
    level: float = 0.9,
    costs: Sequence[RungCost] = (),
) -> tuple[Confounder, ...]:
    """The confounders of a law with log `residuals` (n,) on `table`.

    `corpus`: what the tokens' manifest says of the text (its `held_out` part), where it is at hand. `costs`: what the
    recipe's learning rate costs at some of the runs.
    """
    confounders = [_epochs(table), _seen(corpus), _copying(table, residuals, level), _gap(table), _recipe(table, costs)]
    for column, name in _TESTED.items():
        confounders.append(_tested(name, _numeric(table, column), residuals, level))
    return tuple(confounder for confounder in confounders if confounder is not None)


def _epochs(table: RunTable) -> Confounder | None:
    columns = [name for name in table.frame.columns if name.startswith("epochs/") or name.lower() == "epochs"]
    values = [column for name in columns if (column := _numeric(table, name)) is not None]
    if not values:
        return None
    low, high = float(np.min(values)), float(np.max(values))
    if high <= 1:
        words = f"No run saw any text twice (at most {high:.2g} epochs)."
        return Confounder("epochs", (low, high), np.nan, False, words)
    words = f"Some runs passed over their text up to {high:.2f} times: repeated tokens are worth less than new ones."
    return Confounder("epochs", (low, high), np.nan, True, words)


def _seen(corpus: Mapping[str, Any] | None) -> Confounder | None:
    """How much of the held-out text stood word for word in training."""
    parts = [
        part
        for domain in ((corpus or {}).get("held_out") or {}).get("domains", {}).values()
        for part in domain.values()
        if part.get("windows")
    ]
    if not parts:
        return None
    window = (corpus or {})["held_out"]["window"]
    total = sum(part["windows"] for part in parts)
    before = sum(part["seen_share_before"] * part["windows"] for part in parts) / total
    after = max(part["seen_share_after"] for part in parts)
    words = (
        f"The corpus repeats itself: {before:.1%} of the held-out runs of {window} tokens stood in training "
        f"word for word; they were cut out, {after:.1%} are left."
    )
    return Confounder("repetition of the corpus", (after, before), np.nan, before > 0.05 or after > 0, words)


def _copying(table: RunTable, residuals: Array, level: float) -> Confounder | None:
    if table.copying is None:
        return None
    low, high = float(table.copying.min()), float(table.copying.max())
    p_value = _correlation(table.copying, residuals)
    count = int(np.sum(table.copying >= COPIES))
    mixed = 0 < count < len(table)
    state = (
        f"{count} of {len(table)} runs copy from their context and the others do not yet (score {low:.2f} to "
        f"{high:.2f}): a law across that change is a law of two regimes"
        if mixed
        else f"{'All' if count else 'No'} runs copy from their context (score {low:.2f} to {high:.2f})"
    )
    return Confounder("copying", (low, high), p_value, mixed, f"{state}. {_significance('copying', p_value, level)}")


def _gap(table: RunTable) -> Confounder | None:
    training = _numeric(table, "train/loss")
    if training is None:
        return None
    gap = table.loss - training
    smallest, largest = (
        float(np.mean(gap[np.isclose(table.budget, budget)])) for budget in (table.budget.min(), table.budget.max())
    )
    words = (
        f"Validation loss less training loss is {smallest:+.3f} nats at the smallest budget and {largest:+.3f} at the "
        "largest"
    )
    alarming = largest - smallest > 0.05
    words += ": the larger runs learn their training text by heart." if alarming else "."
    return Confounder("gap", (smallest, largest), np.nan, alarming, words)


def _recipe(table: RunTable, costs: Sequence[RungCost]) -> Confounder | None:
    if not costs:
        if "recipe.learning_rate" not in table.frame.columns:
            return None
        words = "What the recipe's learning rate costs at each size was not measured: sweep.rate_pairs=true does that."
        return Confounder("recipe", (np.nan, np.nan), np.nan, False, words)
    least, most = min(one.cost for one in costs), max(one.cost for one in costs)
    return Confounder("recipe", (least, most), np.nan, is_uneven(costs), cost_words(costs))


def _tested(name: str, values: Array | None, residuals: Array, level: float) -> Confounder | None:
    if values is None or len(np.unique(values)) < 2:
        return None
    p_value = _correlation(values, residuals)
    low, high = float(values.min()), float(values.max())
    words = f"{name.capitalize()} from {low:g} to {high:g} along the family. {_significance(name, p_value, level)}"
    return Confounder(name, (low, high), p_value, p_value < 1 - level, words)


def _significance(name: str, p_value: float, level: float) -> str:
    if not np.isfinite(p_value):
        return "Too few runs to test it."
    if p_value < 1 - level:
        return f"The law's errors go with the {name} (p = {p_value:.2g})."
    return f"The law's errors do not go with the {name} (p = {p_value:.2g})."


def _correlation(values: Array, residuals: Array) -> float:
    if len(values) < 5 or len(np.unique(values)) < 2:
        return float("nan")
    return float(spearmanr(values, residuals).pvalue)


def _numeric(table: RunTable, name: str) -> Array | None:
    import pandas as pd

    for column in (name, f"params.{name}"):
        if column in table.frame.columns:
            values = pd.to_numeric(table.frame[column], errors="coerce").to_numpy(dtype=float)
            return None if np.isnan(values).any() else values
    return None
