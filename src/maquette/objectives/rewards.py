"""What a policy is optimised for, as seen from here: a function from answers to numbers.

Whether a reward model, a task with a gold reward, a person or any callable stands behind it, the policy never knows.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from maquette.artifacts import StageError
from maquette.text.chat import Message


@dataclasses.dataclass(frozen=True)
class Completion:
    """An answer to be scored.

    `answer` is its text; `answer_ids` all that was generated, with the closing end of turn where `ended`. `facts` is
    what the prompt's source knows of it.
    """

    messages: tuple[Message, ...]
    answer: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    ended: bool
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class RewardFunction(Protocol):
    """One number for each answer, the higher the better."""

    def __call__(self, completions: Sequence[Completion]) -> Sequence[float]: ...


def checked_scores(reward: RewardFunction, completions: Sequence[Completion]) -> list[float]:
    """The scores of `completions`. Raises `StageError` where there are not as many, or one is not a finite number."""
    scores = [float(score) for score in reward(completions)]
    if len(scores) != len(completions):
        raise StageError(f"The reward gave {len(scores)} scores for {len(completions)} answers.")
    for score, completion in zip(scores, completions, strict=True):
        if not math.isfinite(score):
            prompt = completion.messages[-1]["content"] if completion.messages else ""
            raise StageError(
                f"The reward of an answer is {score}: prompt {prompt!r:.80}, answer {completion.answer!r:.80}.",
                "A reward has to give a finite number for every answer, an empty one too.",
            )
    return scores
