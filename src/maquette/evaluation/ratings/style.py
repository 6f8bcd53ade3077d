"""How an answer looks, apart from what it says: covariates for ratings at equal style.

As Chatbot Arena's style control has it (Li et al. 2024, "Does style matter?"): of each feature the difference of the
two answers over their sum, in units of its standard deviation over all battles, so that coefficients can be compared.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import ConfigError

_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


def style(text: str) -> dict[str, int]:
    """Counts in a text: `length` in characters, items of `lists`, `headings`, `bold` runs (Markdown)."""
    return {
        "length": len(text),
        "lists": len(_LIST_ITEM.findall(text)),
        "headings": len(_HEADING.findall(text)),
        "bold": len(_BOLD.findall(text)),
    }


def style_covariates(winners: Sequence[str], losers: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """For `bradley_terry_ratings(..., covariates=...)`: the winning answer's features less the losing one's, (n,) each.

    A feature that no battle differs in is left out: it could not be told from nothing.
    """
    if len(winners) != len(losers):
        raise ConfigError(f"{len(winners)} winning and {len(losers)} losing answers.", "Give both of each battle.")
    found = {}
    for name in style(""):
        first, second = (np.array([style(text)[name] for text in texts], float) for texts in (winners, losers))
        total = first + second
        difference = np.divide(first - second, total, out=np.zeros(len(total)), where=total > 0)
        spread = float(np.sqrt(np.mean(difference**2))) if len(difference) else 0.0
        if spread > 0:
            found[name] = difference / spread
    return found
