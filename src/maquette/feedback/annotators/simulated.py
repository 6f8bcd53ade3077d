"""Simulated people: they see the gold reward through noise, and have biases that can be switched on.

A person's utility of an answer is its gold reward, plus what they like beside it: length, lists. They choose the first
answer with probability sigma((u1 - u2 + position bias) / tau), the model of Bradley and Terry (1952); the same person
asked the same question answers the same.
"""

import dataclasses
import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from maquette.artifacts import ConfigError
from maquette.feedback.annotators.gold import gold_of
from maquette.feedback.comparison import Comparison, Judgement
from maquette.feedback.tasks import is_list, words_of


@dataclasses.dataclass(frozen=True)
class Taste:
    """What a simulated person is like. `noise` is tau, in units of the gold reward; 0: never wrong about utility.

    `length_bias`: utility of each word of an answer; `list_bias`: of its being laid out as a list; `position_bias`: of
    being shown first.
    """

    noise: float = 0.15
    length_bias: float = 0.0
    list_bias: float = 0.0
    position_bias: float = 0.0

    def utility(self, gold: float, answer: str) -> float:
        """Gold reward and whatever the taste adds."""
        return gold + self.length_bias * len(words_of(answer)) + self.list_bias * is_list(answer)

    def probability(self, difference: ArrayLike) -> NDArray[np.float64]:
        """Chance of choosing the first answer, for differences of utility (first less second, without position)."""
        shifted = np.asarray(difference, dtype=np.float64) + self.position_bias
        if self.noise == 0:
            return 0.5 * (1 + np.sign(shifted))
        return expit(shifted / self.noise)


class SimulatedAnnotator:
    """A person with a taste. `seed` tells one person from another."""

    def __init__(self, taste: Taste, *, seed: int = 0) -> None:
        self.taste, self.seed = taste, seed
        self.name = f"simulated-{seed}"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        chances = self.taste.probability(utility_differences(self.taste, comparisons))
        return [
            Judgement(0.5 if chance == 0.5 and self.taste.noise == 0 else float(self._number(one) < chance))
            for one, chance in zip(comparisons, chances, strict=True)
        ]

    def _number(self, one: Comparison) -> float:
        return random.Random(f"{self.seed} {one.key}").random()


def utility_differences(taste: Taste, comparisons: Sequence[Comparison]) -> NDArray[np.float64]:
    """Utility of the first less that of the second answer, (n,)."""
    return np.array(
        [
            taste.utility(gold_of(one.facts, one.first), one.first)
            - taste.utility(gold_of(one.facts, one.second), one.second)
            for one in comparisons
        ]
    )


def expected_agreement(taste: Taste, differences: ArrayLike) -> float:
    """How often two people of one taste agree on pairs with these differences of utility: mean of p^2 + (1 - p)^2."""
    chance = taste.probability(differences)
    return float((chance**2 + (1 - chance) ** 2).mean())


def noise_for_agreement(taste: Taste, differences: ArrayLike, agreement: float) -> Taste:
    """The taste with the noise at which two such people agree so often on these pairs.

    Raises `ConfigError` where no noise gives that agreement: it lies between 1/2 and what the pairs allow (equal
    answers can't be agreed on).
    """
    differences = np.asarray(differences, dtype=np.float64)
    low, high = 1e-4, 1e4
    most = expected_agreement(dataclasses.replace(taste, noise=low), differences)
    if not 0.5 < agreement < most:
        raise ConfigError(
            f"agreement={agreement:g} can't be reached on these pairs.", f"Allowed: above 0.5 and below {most:.2f}."
        )
    for _ in range(60):  # agreement falls as noise rises
        middle = math.sqrt(low * high)
        reached = expected_agreement(dataclasses.replace(taste, noise=middle), differences)
        low, high = (middle, high) if reached > agreement else (low, middle)
    return dataclasses.replace(taste, noise=math.sqrt(low * high))
