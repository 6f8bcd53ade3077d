"""Which sizes an IsoFLOP sweep trains at each budget, and which mixtures are tried to fit a mixing law to. Pure
arithmetic, free of torch.

A budget's sizes stand around the one that is expected to be best: the model that the budget trains on
`tokens_per_parameter` tokens for each parameter, or as many as were best in this project's own sweeps. They come from
one ladder for all budgets (10,000 x ratio^k), so neighbouring budgets share sizes: the same model is seen at several
token budgets, and one trunk can serve them (`sweep.branches`). That places the curve's middle within half a step of the
expectation.

Of the mixtures the first two are those to beat: every domain alike, and in proportion to size. The others are drawn
evenly from all mixtures (a flat Dirichlet distribution), and pulled towards the proportional one as far as bounded
epochs ask for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.errors import ConfigError
from maquette.data.config import PhaseConfig
from maquette.model.config import ModelConfig
from maquette.recipe.pretraining import training_flops_of
from maquette.recipe.shape import family, parameters_of

_BEST_RATIO, _BEST_RATIO_AT, _BEST_RATIO_EXPONENT = 12.0, 1e11, 0.1
"""Tokens for each parameter of the best size at a budget C: 12 (C / 1e11)^.1, along the shrunk lines of minima of this
project's sweeps (11 at 3e10 to 3e11 FLOPs under today's recipe; 13 to 23 at 3e10 to 1e14 under an earlier one). At 20
the minima of small budgets lay at the largest size."""

_ANCHOR = 10_000
"""A size of the ladder; which one is of no importance."""


@dataclass(frozen=True)
class Curve:
    """The sizes of one budget. `warning`: why they do not stand around `expected`, empty where they do."""

    budget: float
    expected: float
    sizes: tuple[int, ...]
    warning: str = ""


def isoflop_curve(
    budget: float,
    *,
    count: int,
    ratio: float,
    tokens_per_parameter: float | None,
    model: ModelConfig,
    vocab_size: int,
    context: int,
    phases: Sequence[PhaseConfig] = (),
) -> Curve:
    """`count` sizes, each `ratio` times the one before, for a budget of FLOPs.

    `tokens_per_parameter`: of the middle one; None: as many as are expected to be best at this budget.
    Raises `ConfigError` where the model's shape is fixed, so that there is no family.
    """
    members = family(model, vocab_size=vocab_size, context=context)
    sizes = [parameters_of(member) for member in members]
    if len(members) < 2 or sizes[-1] < sizes[0] * ratio ** (count - 1):
        raise ConfigError(
            "An IsoFLOP sweep needs a family of sizes, but the model's shape is fixed.",
            "Leave model.hidden_size and model.num_hidden_layers to the recipe.",
        )
    if tokens_per_parameter is None:
        tokens_per_parameter = _BEST_RATIO * (budget / _BEST_RATIO_AT) ** _BEST_RATIO_EXPONENT
    costs = [
        training_flops_of(member, 1_000_000, context, phases).total / 1e6 * tokens_per_parameter * size
        for member, size in zip(members, sizes, strict=True)
    ]
    log_budget = math.log(budget)
    expected = math.exp(float(np.interp(log_budget, np.log(costs), np.log(sizes))))
    if log_budget < math.log(costs[0]):  # below the family: where the line through its smallest members points
        expected = sizes[0] * (budget / costs[0]) ** 0.5
    middle = math.log(expected / _ANCHOR) / math.log(ratio)
    first = round(middle - (count - 1) / 2)
    lowest = math.ceil(math.log(0.95 * sizes[0] / _ANCHOR) / math.log(ratio))
    warning = ""
    if first < lowest:
        warning = (
            f"at {budget:.3g} FLOPs about {_three_digits(expected):,} parameters are expected to be best, and the "
            f"family begins at {sizes[0]:,}: the curve leans to the right. "
            "A smaller vocabulary or a larger budget helps."
        )
        first = lowest
    chosen = tuple(_three_digits(_ANCHOR * ratio ** (first + step)) for step in range(count))
    return Curve(budget, expected, chosen, warning)


def _three_digits(value: float) -> int:
    return int(float(f"{value:.3g}"))


Floats = NDArray[np.float64]

DECIMALS = 4
"""Of the weights: they are typed and read."""


def mixture_design(
    tokens: Mapping[str, int], count: int, *, budget: float, max_epochs: float = 4.0, seed: int = 0
) -> list[dict[str, float]]:
    """`count` mixtures of the domains in `tokens` (domain -> training tokens) beside the uniform and the proportional.

    `budget` is the tokens of a run: no drawn mixture reads a domain more than `max_epochs` times. Domains without
    tokens are left out. Raises `ConfigError` where fewer than two domains are left.
    """
    sizes = {name: size for name, size in sorted(tokens.items()) if size > 0}
    if len(sizes) < 2:
        raise ConfigError(
            f"A sweep over mixtures needs at least two domains; the corpus has {', '.join(sizes) or 'none'}.",
            "Give rows a `domain`, or a folder for each.",
        )
    size = np.array(list(sizes.values()), np.float64)
    proportional = size / size.sum()
    most = max_epochs * size / budget
    numbers = np.random.default_rng(seed)
    drawn = [_pulled(numbers.dirichlet(np.ones(size.size)), proportional, most) for _ in range(count)]
    rows = [np.full(size.size, 1 / size.size), proportional, *drawn]
    return [dict(zip(sizes, _rounded(row), strict=True)) for row in rows]


def _pulled(weights: Floats, towards: Floats, most: Floats) -> Floats:
    """`weights`, or the nearest point on the way to `towards` with no weight above `most`."""
    over = weights > most
    if not over.any():
        return weights
    if (towards > most).any():
        return towards  # even in proportion to size the text is read too often
    share = ((weights - most)[over] / (weights - towards)[over]).max()
    return weights + share * (towards - weights)


def _rounded(weights: Floats) -> list[float]:
    """To `DECIMALS`, with the sum 1 kept: the largest takes what is left over."""
    rounded = np.round(weights, DECIMALS)
    rounded[weights.argmax()] += 1 - rounded.sum()
    return [round(float(weight), DECIMALS) for weight in rounded]
