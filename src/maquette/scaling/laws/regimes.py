"""Laws across a change of regime: a family that begins to copy from its context.

Copying (induction heads, Olsson et al. 2022) sets in abruptly, after enough tokens, and takes 8 to 10% off the loss of
text that repeats itself. No law fitted before sees it coming in the loss. The copying score does: it rises a budget or
two before (.003, .019, .147 at 1e12, 1e13 and 1e14 FLOPs on this project's own text), and of each kind of token the law
goes on: new ones and misses within .5%. So the loss is predicted by kind, and added up.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from maquette.scaling.laws.runs import Array, LawError, Runs

COPIES = 0.05
"""Copying score from which a model is said to copy: a twentieth of the loss goes when a run of tokens comes again.
Models of 20k to 180k parameters that do not copy yet scored .000 to .010."""

BEGINS = 0.01
"""Score of the largest budget's best run from which copying is about to set in."""

GAIN = 0.05
"""Deviation of ln L per decade, downwards, of a family that does not copy yet: on its way where copying is about to set
in, and after a decade where there is no sign of it (the score announces it a budget or two before)."""


class Onset(NamedTuple):
    """How much lower the loss may come out than any law says: a deviation of ln L of `per_decade` times the decades
    beyond the first `after`."""

    per_decade: float = 0.0
    after: float = 0.0

    def below(self, decades: Array) -> Array:
        """That deviation of runs that lie so many `decades` beyond the fitted ones."""
        return np.asarray(self.per_decade * np.maximum(0.0, decades - self.after))


def copying_onset(copying: ArrayLike | None, runs: Runs) -> tuple[Onset, list[str]]:
    """How much lower the loss may come out when copying sets in, and what is to be said.

    Nothing where the scores are not known, or the best run of the largest budget copies already.
    """
    if copying is None:
        return Onset(), []
    score = np.asarray(copying, float)
    if score.shape != runs.loss.shape:
        raise LawError(f"copying has shape {score.shape} where there are {len(runs.loss)} runs.")
    largest = np.flatnonzero(runs.budget == runs.budget.max())
    best = float(score[largest[np.argmin(runs.loss[largest])]])
    if not np.isfinite(best) or best >= COPIES:
        return Onset(), []
    if best < BEGINS:
        return Onset(GAIN, 1.0), []
    return Onset(GAIN), [
        f"Copying from the context is about to set in (score {best:.3f} of the best run at the largest budget): the "
        "loss may fall below every law when it does, and the interval reaches lower."
    ]
