"""One interface for all who give feedback: two answers to a prompt go in, a preference comes out."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from maquette.text.chat import Message


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, in the order in which they are shown. `facts`: what the prompt's source knows."""

    messages: tuple[Message, ...]
    first: str
    second: str
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def swapped(self) -> "Comparison":
        """The same answers the other way round."""
        return dataclasses.replace(self, first=self.second, second=self.first)

    @property
    def key(self) -> str:
        """Digest of prompt and answers in their order, for caches and for random numbers of its own."""
        text = "\x1f".join([*(f"{m['role']}\x1e{m['content']}" for m in self.messages), self.first, self.second])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclasses.dataclass(frozen=True)
class Judgement:
    """`preference`: 1 where the first answer is better, 0 where the second is, between them for the undecided; None
    where the annotator gave no usable answer. `margin`: by how much, in the annotator's own units, where it says so."""

    preference: float | None
    margin: float | None = None


class Annotator(Protocol):
    """Someone, or something, that prefers one of two answers. `name` stands in preference files."""

    name: str

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """One judgement for each comparison, in order."""
        ...
