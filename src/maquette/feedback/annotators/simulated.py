"""The true reward of the embedded tasks, as an annotator that is never wrong; and simulated people, who see it through
noise, and have biases that can be switched on.

A person's utility of a completion is its gold reward, plus what they like beside it: length, lists. They choose the
first completion with probability sigma((u1 - u2 + position bias) / tau), the model of Bradley and Terry (1952); the
same person asked the same question answers the same."""

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from maquette.artifacts import ConfigError
from maquette.feedback.comparison import Comparison, Judgement
from maquette.feedback.tasks import from_facts, is_list, words_of
from maquette.objectives.completions import Completion


def gold_of(facts: Mapping[str, Any], completion: str) -> float:
    """The gold reward of a completion. Raises `StageError` where the prompt has none."""
    return from_facts(facts).gold(completion)


class GoldReward:
    """The gold reward as a `RewardFunction`: the ceiling of what can be optimised for."""

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [gold_of(one.facts, one.answer) for one in completions]


class GoldAnnotator:
    """Prefers the completion with the higher gold reward; equal ones are a tie."""

    name = "gold"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        return [self._judge(one) for one in comparisons]

    def _judge(self, one: Comparison) -> Judgement:
        difference = gold_of(one.facts, one.first) - gold_of(one.facts, one.second)
        if math.isclose(difference, 0.0, abs_tol=1e-9):
            return Judgement(0.5, 0.0)
        return Judgement(float(difference > 0), difference)


@dataclasses.dataclass(frozen=True)
class AnnotatorProfile:
    """What a simulated person is like. `noise` is tau, in units of the gold reward; 0: never wrong about utility.

    `length_bias`: utility of each word of a completion; `list_bias`: of its being laid out as a list; `position_bias`:
    of being shown first."""

    noise: float = 0.15
    length_bias: float = 0.0
    list_bias: float = 0.0
    position_bias: float = 0.0

    def utility(self, gold: float, completion: str) -> float:
        """Gold reward and whatever the profile adds."""
        return gold + self.length_bias * len(words_of(completion)) + self.list_bias * is_list(completion)

    def probability(self, difference: ArrayLike) -> NDArray[np.float64]:
        """Chance of choosing the first completion, for differences of utility (first less second, without position)."""
        shifted = np.asarray(difference, dtype=np.float64) + self.position_bias
        if self.noise == 0:
            return 0.5 * (1 + np.sign(shifted))
        return expit(shifted / self.noise)


class SimulatedAnnotator:
    """A person with a profile. `seed` tells one person from another."""

    def __init__(self, profile: AnnotatorProfile, *, seed: int = 0) -> None:
        self.profile, self.seed = profile, seed
        self.name = f"simulated-{seed}"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        chances = self.profile.probability(utility_differences(self.profile, comparisons))
        return [
            Judgement(0.5 if chance == 0.5 and self.profile.noise == 0 else float(self._number(one) < chance))
            for one, chance in zip(comparisons, chances, strict=True)
        ]

    def _number(self, one: Comparison) -> float:
        return random.Random(f"{self.seed} {one.key}").random()


def utility_differences(profile: AnnotatorProfile, comparisons: Sequence[Comparison]) -> NDArray[np.float64]:
    """Utility of the first less that of the second completion, (n,)."""
    return np.array(
        [
            profile.utility(gold_of(one.facts, one.first), one.first)
            - profile.utility(gold_of(one.facts, one.second), one.second)
            for one in comparisons
        ]
    )


def expected_agreement(profile: AnnotatorProfile, differences: ArrayLike) -> float:
    """How often two people of one profile agree on pairs with these differences of utility: mean of p^2 + (1 - p)^2."""
    chance = profile.probability(differences)
    return float((chance**2 + (1 - chance) ** 2).mean())


def noise_for_agreement(profile: AnnotatorProfile, differences: ArrayLike, agreement: float) -> AnnotatorProfile:
    """The profile with the noise at which two such people agree so often on these pairs.

    Raises `ConfigError` where no noise gives that agreement: it lies between 1/2 and what the pairs allow (equal
    completions can't be agreed on).
    """
    differences = np.asarray(differences, dtype=np.float64)
    low, high = 1e-4, 1e4
    most = expected_agreement(dataclasses.replace(profile, noise=low), differences)
    if not 0.5 < agreement < most:
        raise ConfigError(
            f"agreement={agreement:g} can't be reached on these pairs.", f"Allowed: above 0.5 and below {most:.2f}."
        )
    for _ in range(60):  # agreement falls as noise rises
        middle = math.sqrt(low * high)
        reached = expected_agreement(dataclasses.replace(profile, noise=middle), differences)
        low, high = (middle, high) if reached > agreement else (low, middle)
    return dataclasses.replace(profile, noise=math.sqrt(low * high))
