"""An exercise: one instruction with everything that is needed to judge an answer to it."""

import dataclasses
import random
from collections.abc import Mapping
from typing import Any, Protocol

from maquette.artifacts import StageError
from maquette.feedback.tasks.answers import gold_reward
from maquette.text.chat import Message


@dataclasses.dataclass(frozen=True)
class Exercise:
    """`instruction` is what a person asks; `items` the words that are given in it; `answer` the right words.

    `ordered`: the answer's order counts. `declines`: the request is to be turned down.
    """

    task: str
    instruction: str
    items: tuple[str, ...]
    answer: tuple[str, ...]
    ordered: bool = False
    declines: bool = False

    @property
    def messages(self) -> list[Message]:
        """The conversation so far: one user message."""
        return [{"role": "user", "content": self.instruction}]

    @property
    def right(self) -> str:
        """The best answer there is, as text."""
        return " ".join(self.answer)

    def gold(self, answer: str) -> float:
        """The true reward of an answer: see `gold_reward`."""
        return gold_reward(answer, self.answer, ordered=self.ordered, declines=self.declines)

    def facts(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_facts` reads them."""
        return dataclasses.asdict(self)


class Task(Protocol):
    """A kind of exercise. `draw` makes one from random numbers alone, so a seed gives an endless supply."""

    name: str

    def draw(self, numbers: random.Random) -> Exercise: ...


def from_facts(facts: Mapping[str, Any]) -> Exercise:
    """The exercise that `Exercise.facts` describes. Raises `StageError` where something is missing."""
    try:
        return Exercise(
            task=str(facts["task"]),
            instruction=str(facts["instruction"]),
            items=tuple(facts["items"]),
            answer=tuple(facts["answer"]),
            ordered=bool(facts.get("ordered", False)),
            declines=bool(facts.get("declines", False)),
        )
    except (KeyError, TypeError) as error:
        raise StageError(
            f"A prompt has no gold reward: its exercise is not complete ({error}).",
            "Only prompts of the embedded tasks have one; use another annotator or reward for your own.",
        ) from None
