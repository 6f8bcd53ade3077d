"""Which mixtures a sweep tries, so that a mixing law can be fitted to it. Pure arithmetic.

The first two are those to beat: every domain alike, and in proportion to size. The others are drawn evenly from all
mixtures (a flat Dirichlet distribution), and pulled towards the proportional one as far as bounded epochs ask for.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.errors import ConfigError

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
