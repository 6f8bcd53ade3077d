"""One interface for all who give feedback: two completions of a prompt go in, a preference comes out; and such pairs
from preferences and to them."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from maquette.artifacts import StageError
from maquette.data.conversations import Preference
from maquette.text.chat import Message


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two completions of one prompt, in the order in which they are shown. `facts`: what the prompt's source knows."""

    messages: tuple[Message, ...]
    first: str
    second: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def swapped(self) -> "Comparison":
        """The same answers the other way round."""
        return dataclasses.replace(self, first=self.second, second=self.first)

    @property
    def key(self) -> str:
        """Digest of prompt and completions in their order, for caches and for random numbers of its own."""
        text = "\x1f".join([*(f"{m['role']}\x1e{m['content']}" for m in self.messages), self.first, self.second])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclasses.dataclass(frozen=True)
class Judgement:
    """`preference`: 1 where the first completion is better, 0 where the second is, between them for the undecided; None
    where the annotator gave no usable reply. `margin`: by how much, in the annotator's own units, where it says so.
    `annotator`: which of several people judged, where that is to stand in preference files."""

    preference: float | None
    margin: float | None = None
    annotator: str | None = None


class Annotator(Protocol):
    """Someone, or something, that prefers one of two completions. `name` stands in preference files."""

    name: str

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """One judgement for each comparison, in order."""
        ...


def preferences_of(
    comparisons: Sequence[Comparison], judgements: Sequence[Judgement], annotator: str
) -> Iterator[Preference]:
    """Labels of the pairs that were decided; ties, pairs that nobody could judge and equal completions make none."""
    for one, judged in zip(comparisons, judgements, strict=True):
        if judged.preference is None or judged.preference == 0.5 or one.first == one.second:
            continue
        wins = judged.preference > 0.5
        chosen, rejected = (one.first, one.second) if wins else (one.second, one.first)
        margin = None if judged.margin is None else abs(judged.margin)
        by = judged.annotator or annotator
        yield Preference(list(one.messages), _response(chosen), _response(rejected), by, margin, facts=one.facts)


def comparison_of(preference: Preference) -> Comparison:
    """The pair as an annotator sees it, the chosen completion first. Raises `StageError` where a completion is more
    than one message: what the user says in between is not part of a pair."""
    for completion in (preference.chosen, preference.rejected):
        if len(completion) > 1:
            raise StageError(
                f"{preference.place}: a completion of {len(completion)} messages can't be judged.",
                "Move all but the last message into the prompt.",
            )
    (chosen,), (rejected,) = preference.chosen, preference.rejected
    return Comparison(tuple(preference.prompt), chosen["content"], rejected["content"], preference.facts)


def _response(completion: str) -> list[Message]:
    return [{"role": "assistant", "content": completion}]
