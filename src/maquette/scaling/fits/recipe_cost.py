"""What the recipe's learning rate costs along a family: from runs at half and twice the rate beside some of its own.

A recipe that suits the large models and not the small ones bends the law: it lifts one end. Runs that differ from
another in nothing but the rate measure that, and are no points of the law themselves.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maquette.reports.tables import quantity
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.minimum import curve_minimum

REASON = "differs from another run in its learning rate only: it measures what the recipe's costs"

_RATE, _RECIPE = "optimizer.lr", "recipe.learning_rate"
_ALIKE = ("seed", "data.batch_size_tokens", "model.kind", "model.activation", "scheduler._target_", "recipe.kind")


UNEVEN = 0.003
"""Difference of costs along a family from which it bends a law visibly: the noise of a seed."""


@dataclass(frozen=True)
class RungCost:
    """One size and token budget at several rates. `cost`: relative excess of the loss at the recipe's rate over the
    least; `best`: the rate of that, as a multiple of the recipe's; `edge`: it lies at an end of what was tried, so that
    the cost is more."""

    params: float
    tokens: float
    rate: float
    best: float
    cost: float
    edge: bool

    @property
    def words(self) -> str:
        more = "at least " if self.edge else ""
        return f"{more}{self.cost:.1%} at {quantity(self.params)} (best at {self.best:.2g} times)"


def recipe_costs(table: RunTable) -> tuple[RunTable, tuple[RungCost, ...]]:
    """The table without runs that only measure a cost, and the costs, the smallest run first.

    Of runs alike but for the rate, three or more, the one in the middle has the recipe's. Only runs that recorded their
    recipe are looked at: in another table nobody knows which rate was meant.
    """
    frame = table.frame
    names = {name.removeprefix("params."): name for name in map(str, frame.columns)}
    if _RATE not in names or _RECIPE not in names:
        return table, ()
    rates = np.asarray(frame[names[_RATE]], float)
    settings = [frame[names[name]].astype(str).tolist() for name in _ALIKE if name in names]
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, key in enumerate(zip(table.params, table.tokens, *settings, strict=True)):
        groups.setdefault(key, []).append(row)
    costs, extra = [], []
    for rows in groups.values():
        rows.sort(key=lambda row: rates[row])
        if len(rows) < 3 or len(set(rates[rows])) < len(rows):
            continue
        own = rows[len(rows) // 2]
        extra += [row for row in rows if row != own]
        least = curve_minimum(np.log(rates[rows]), np.log(table.loss[rows]))
        cost = float(np.log(table.loss[own]) - least.y)
        costs.append(
            RungCost(
                float(table.params[own]), float(table.tokens[own]), float(rates[own]),
                float(np.exp(least.x) / rates[own]), max(0.0, float(np.expm1(cost))), bool(least.edge),
            )
        )  # fmt: skip
    if not extra:
        return table, ()
    left_out = (*table.left_out, *((table.names[row], REASON) for row in sorted(extra)))
    remaining = table.take(np.setdiff1d(np.arange(len(table)), extra))
    costs.sort(key=lambda one: one.params * one.tokens)
    return dataclasses.replace(remaining, left_out=left_out), tuple(costs)


def is_uneven(costs: Sequence[RungCost]) -> bool:
    """Whether the costs differ enough to bend a law."""
    return max(one.cost for one in costs) - min(one.cost for one in costs) > UNEVEN


def cost_words(costs: Sequence[RungCost]) -> str:
    """What the recipe's rate costs at each rung, in a sentence."""
    text = f"The recipe's learning rate costs {', '.join(one.words for one in costs)} of the loss."
    return f"{text} That is uneven along the family, and bends its law." if is_uneven(costs) else text
