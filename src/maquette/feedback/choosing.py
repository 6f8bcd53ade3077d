"""Which pairs are worth a label, where there are more pairs than labels.

`uncertainty`: those whose outcome the reward models together are least sure of, a probability near 0.5 (Lewis and Gale
1994). `disagreement`: those about whose probability they differ most (query by committee: Seung et al. 1992; for
preferences, Christiano et al. 2017, section 2.2.4). `random` is what both have to beat.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from maquette.artifacts.progress import say
from maquette.feedback.annotators.reward_model import RewardModelAnnotator
from maquette.feedback.building import open_reward_model
from maquette.feedback.comparison import Comparison


def choose_pairs(
    pairs: Sequence[Comparison], labels: int | None, how: str, rewards: Sequence[str], outputs: Path | str, *, seed: int
) -> list[Comparison]:
    """At most `labels` of the pairs, in their order; all of them where it is None. `rewards`: runs of reward models,
    whose probabilities decide. Raises `StageError` where one of them can't be opened."""
    if labels is None or labels >= len(pairs):
        return list(pairs)
    worth = np.zeros(len(pairs))
    if how != "random":
        worth = worth_of_a_label(probabilities_of(pairs, rewards, outputs), how)
    places = most_worth(worth, [one.key for one in pairs], labels, seed=seed)
    say(f"{labels:,} of {len(pairs):,} pairs are labelled, by {how}")
    return [pairs[place] for place in places]


def probabilities_of(pairs: Sequence[Comparison], rewards: Sequence[str], outputs: Path | str) -> NDArray[np.float64]:
    """The chance that each reward model gives the first completion of each pair, (models, n)."""
    rows = []
    for name in rewards:
        judged = RewardModelAnnotator(open_reward_model(name, outputs)).judge(pairs)
        rows.append(expit([one.margin or 0.0 for one in judged]))
    return np.array(rows)


def worth_of_a_label(probabilities: NDArray[np.float64], how: str) -> NDArray[np.float64]:
    """The more, the better: `probabilities (models, n)` to `(n,)`."""
    if how == "uncertainty":
        return -np.abs(probabilities.mean(axis=0) - 0.5)
    return probabilities.std(axis=0)


def most_worth(worth: NDArray[np.float64], keys: Sequence[str], labels: int, *, seed: int) -> list[int]:
    """Places of the `labels` pairs of the greatest worth, ascending. Equal ones are drawn by a digest of their `keys`
    and the seed, whatever else is there."""
    drawn = [hashlib.sha256(f"{seed} {key}".encode()).digest() for key in keys]
    order = sorted(range(len(keys)), key=lambda place: (-worth[place], drawn[place]))
    return sorted(order[:labels])
