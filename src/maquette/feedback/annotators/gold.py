"""The true reward of the embedded tasks, as an annotator that is never wrong."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from maquette.feedback.comparison import Comparison, Judgement
from maquette.feedback.tasks import from_facts
from maquette.objectives.completions import Completion


def gold_of(facts: Mapping[str, Any], answer: str) -> float:
    """The gold reward of an answer. Raises `StageError` where the prompt has none."""
    return from_facts(facts).gold(answer)


class GoldReward:
    """The gold reward as a `RewardFunction`: the ceiling of what can be optimised for."""

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        return [gold_of(one.facts, one.answer) for one in completions]


class GoldAnnotator:
    """Prefers the answer with the higher gold reward; equal ones are a tie."""

    name = "gold"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        return [self._judge(one) for one in comparisons]

    def _judge(self, one: Comparison) -> Judgement:
        difference = gold_of(one.facts, one.first) - gold_of(one.facts, one.second)
        if math.isclose(difference, 0.0, abs_tol=1e-9):
            return Judgement(0.5, 0.0)
        return Judgement(float(difference > 0), difference)
