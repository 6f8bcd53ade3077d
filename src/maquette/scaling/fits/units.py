"""In what a table of runs counts: parameters or billions of them, FLOPs or PFLOP/s-days, nats or a perplexity.

What looks like another unit is refused with its line and the setting that converts it (`units=`); what can't be is not
guessed at.
"""

import re
from collections.abc import Mapping

import numpy as np

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import nearest
from maquette.scaling.laws.runs import Array, LawError
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN

_COUNTS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12}
PERPLEXITY, COMMA = "perplexity", "comma"

UNITS: dict[str, dict[str, float]] = {
    "N": _COUNTS,
    "D": _COUNTS,
    "C": {"petaflops_days": 1e15 * 86_400, "exaflops": 1e18, "zettaflops": 1e21},
    "loss": {"bits": float(np.log(2)), PERPLEXITY: np.nan},
    "decimals": {COMMA: np.nan},
}
"""What a table may count in, and what one of it is in parameters, tokens, FLOPs and nats per token. A perplexity is the
exponential of the loss, and with decimal commas 4,5 is four and a half."""

_LOSS_AT_MOST = 20.0
"""Nats: above the logarithm of any vocabulary."""

_APART_AT_MOST = 100.0
"""How many times C and 6 N D may differ: the head and attention of tiny models cost several times 6 N D."""


def check_units(units: Mapping[str, str]) -> None:
    """Raises `ConfigError` for a quantity or a unit that is not in `UNITS`."""
    for quantity, unit in units.items():
        allowed = UNITS.get(quantity)
        value, known, name = (quantity, UNITS, "units") if allowed is None else (unit, allowed, f"units.{quantity}")
        if value not in known:
            close = nearest(value, list(known))
            hint = f"Did you mean {close}?" if close else f"Allowed: {', '.join(known)}."
            raise ConfigError(f"{name}: {value} is not known.", hint)


def with_point(value: str) -> str:
    """A number with a decimal comma, 1.000,5, as Python writes it; other text as it is."""
    text = value.strip()
    if re.fullmatch(r"[+-]?(\d{1,3}(\.\d{3})+|\d+)(,\d+)?([eE][+-]?\d+)?", text):
        return text.replace(".", "").replace(",", ".")
    return value


def converted(values: Array, quantity: str, units: Mapping[str, str]) -> Array:
    """A column (n,) of N, D, C or loss as laws count it."""
    unit = units.get(quantity)
    if unit is None:
        return values
    return np.log(values) if unit == PERPLEXITY else values * UNITS[quantity][unit]


def implausible(
    params: Array, tokens: Array, loss: Array, compute: Array, columns: Mapping[str, str], rows: list[str]
) -> list[str]:
    """Remarks on numbers that are strange. Raises `LawError`, with the line, for those that can't be: columns in
    billions or PFLOP/s-days, perplexities, decimal commas that were taken for thousands.

    `columns`: which column has which role; `rows`: where each run stands.
    """
    for role, letter, values in (("params", "N", params), ("tokens", "D", tokens)):
        if (small := np.flatnonzero(values < 1)).size:
            which = f"column {columns[role]}" if role in columns else f"{letter} from {columns['compute']}"
            raise LawError(
                f"{rows[small[0]]}, {which}: {values[small[0]]:.4g} is less than one.",
                "Say in what the table counts, such as units={N: billions, D: billions, C: petaflops_days}.",
            )
    if (bad := np.flatnonzero((loss > _LOSS_AT_MOST) | (loss <= 0))).size:
        raise LawError(
            f"{rows[bad[0]]}, column {columns['loss']}: no model has a loss of {loss[bad[0]]:,.6g} nats per token.",
            "If it is the perplexity: units={loss: perplexity}; if its comma is decimal: units={decimals: comma}.",
        )
    apart = np.abs(np.log(compute / (FLOPS_PER_PARAMETER_AND_TOKEN * params * tokens)))
    worst = int(apart.argmax())
    if apart[worst] > np.log(_APART_AT_MOST) / 2:
        words = f"{rows[worst]}: C is {compute[worst]:.3g}, and 6 N D is {6 * params[worst] * tokens[worst]:.3g}"
        if apart[worst] > np.log(_APART_AT_MOST):
            raise LawError(
                f"{words}.",
                "Say in what the table counts, such as units={N: millions, D: billions, C: petaflops_days}.",
            )
        return [f"{words}: are the units right?"]
    return []
