"""Instructions, preferences and prompts: conversations to imitate, pairs of completions to compare, requests to
complete; from files of rows, from data sets, or from any other source that gives them.

An instruction is `{"messages": [{"role": ..., "content": ...}, ...]}`; a message of `"weight": 0` (or `"train": false`)
is read, but not learned. A preference is `{"prompt": messages, "chosen": messages, "rejected": messages, "annotator":
name, "margin": number?}`; plain text in the place of messages is a request of the user or a completion of the
assistant. The shapes in which others write these are in row_shapes.py. `margin`, by how much the chosen completion is
better, is the difference of `score_chosen` and `score_rejected` where a row has those. `probability`, where it is
known, says how likely the annotator (or what share of several) prefers `chosen`. `facts` is what the prompt's source
knows of it: with them the gold reward of any completion can be computed.

A prompt is rendered once, with the assistant's turn opened. One that leaves no room for a completion is left out and
counted, never cut. Their order is a pure function of (seed, number), so that it resumes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, write_text
from maquette.artifacts.reading import short
from maquette.corpus.sources import say_unread
from maquette.corpus.sources.row_files import RowFiles, RowSource
from maquette.data.message_trees import taken_apart
from maquette.data.order import Reshuffled
from maquette.data.row_messages import number_of, text_of
from maquette.data.row_shapes import SCORES, is_pair, labelled_of, messages_of, pair_of, prompt_of
from maquette.text import chat
from maquette.text.chat import Message

if TYPE_CHECKING:
    from maquette.text import Tokenizer


@dataclass(frozen=True)
class Instruction:
    """A conversation with at least one completion. `place` says where it was found, for messages about it; `split` is
    train or validation, None where the reader is to choose."""

    messages: list[Message]
    place: str = ""
    split: str | None = None


@dataclass(frozen=True)
class Preference:
    """`chosen` and `rejected` continue `prompt`; each ends with a completion of the assistant. `place` and `split` as
    of an `Instruction`."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    annotator: str = ""
    margin: float | None = None
    probability: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)
    split: str | None = None

    @property
    def is_tie(self) -> bool:
        """Whether there is nothing to prefer: both completions are the same."""
        return self.chosen == self.rejected

    def row(self) -> dict[str, Any]:
        """The line of a file, without what is not known."""
        row: dict[str, Any] = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        row["annotator"] = self.annotator
        known = {"margin": self.margin, "probability": self.probability, "facts": dict(self.facts) or None}
        return row | {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class LabelledCompletion:
    """A completion alone, and whether it is desirable (KTO, Ethayarajh et al. 2024)."""

    prompt: list[Message]
    completion: list[Message]
    desirable: bool
    place: str = field(default="", compare=False)
    split: str | None = None


class ExampleSource(Protocol):
    """Where instructions or preferences come from. `label`: short, for names; `inputs`: digests of all that decides
    what comes."""

    label: str

    def inputs(self) -> dict[str, str]: ...

    def examples(self) -> Iterable[Any]: ...


_VERSION = 3
"""Of how rows are read: raise it when the same file gives other examples, so that they are encoded again."""


class ExampleFiles:
    """Rows, or the file or folder that holds them, of `kind` `instructions`, `preferences`, `labels` or `prompts`."""

    def __init__(self, rows: Path | str | RowSource, kind: str) -> None:
        self._rows = RowFiles(rows, kind) if isinstance(rows, Path | str) else rows
        self._kind, self.label = kind, self._rows.label

    def inputs(self) -> dict[str, str]:
        return {"files": digest([_VERSION, self._rows.identity, self._rows.inputs()])}

    def examples(self) -> Iterator[Any]:
        """In the rows' order. Raises `StageError` with file, line and reason for a row of another shape; says at the
        end which columns nothing reads."""
        unread, read = set[str](), _READ[self._kind]
        try:
            for place, row in taken_apart(self._rows.rows(), self._kind):
                yield read(row, place, unread)
        finally:  # also where no more are asked for
            say_unread(unread, self._rows.name)


def read_preferences(path: Path | str) -> list[Preference]:
    """All of a file, or of a folder's files. Raises `StageError` that names the line that is wrong."""
    return list(ExampleFiles(path, "preferences").examples())


def write_preferences(path: Path | str, preferences: Iterable[Preference]) -> int:
    """Writes a file, whole or not at all, and returns how many lines it has."""
    lines = [json.dumps(one.row(), ensure_ascii=False) for one in preferences]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def preference_of(row: dict[str, Any], place: str, unread: set[str] | None = None) -> Preference:
    """The preference of a row. Raises `StageError` where it is none."""
    prompt, chosen, rejected = pair_of(row, place, unread)
    margin, scores = number_of(row, "margin", place), [number_of(row, key, place) for key in SCORES]
    if margin is None and None not in scores:
        margin = scores[0] - scores[1]  # type: ignore[operator]
    return Preference(
        prompt,
        chosen,
        rejected,
        annotator=text_of(row, "annotator", place),
        margin=margin,
        probability=number_of(row, "probability", place, low=0.0, high=1.0),
        facts=_facts(row, place),
        place=place,
    )


def _facts(row: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    facts = row.get("facts") or {}
    if not isinstance(facts, dict):
        raise StageError(f"{place}: facts must be an object, got {short(repr(facts), 60)}.", "Leave them out.")
    return facts


_READ: dict[str, Callable[[dict[str, Any], str, set[str]], Any]] = {
    "instructions": lambda row, place, unread: Instruction(messages_of(row, place, unread), place),
    "preferences": preference_of,
    "labels": lambda row, place, unread: (
        preference_of(row, place, unread)
        if is_pair(row)
        else LabelledCompletion(*labelled_of(row, place, unread), place)
    ),
    "prompts": lambda row, place, unread: (prompt_of(row, place, unread), _facts(row, place)),
}
"""What a row becomes, by kind."""


@dataclass(frozen=True)
class Prompt:
    """`ids` end in the token that opens the assistant's turn. `facts`: what its source knows of it, such as the right
    answer; rewards may read them, the policy never sees them."""

    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


class PromptSource(Protocol):
    """`source[i]` for any i: an endless order of prompts, each a pure function of i."""

    def __getitem__(self, number: int) -> Prompt: ...


class ShuffledPrompts:
    """A list of prompts, again and again, each time in another order. `left_out` counts those that were too long."""

    def __init__(self, prompts: Iterable[Prompt], *, longest: int, seed: int = 0) -> None:
        """`longest`: tokens that a prompt may have. Raises `StageError` where no prompt is short enough."""
        everything = list(prompts)
        self.prompts = [prompt for prompt in everything if len(prompt.ids) <= longest]
        self.left_out = len(everything) - len(self.prompts)
        if not self.prompts:
            raise StageError(
                f"None of {len(everything):,} prompts has at most {longest:,} tokens, so that a completion fits.",
                "Use shorter prompts or completions, or a model with a longer context.",
            )
        self._order = Reshuffled(len(self.prompts), "prompts", seed)

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, number: int) -> Prompt:
        return self.prompts[int(self._order.locate(np.array([number]))[0])]


def render_prompt(
    tokenizer: "Tokenizer", messages: Sequence[Message], facts: Mapping[str, Any] | None = None
) -> Prompt:
    """A prompt from a conversation that ends before the assistant's reply. Raises `StageError` as `chat.render`."""
    ids = chat.render(tokenizer, messages, open_assistant=True).ids
    return Prompt(tuple(messages), tuple(ids), facts or {})


def read_prompts(rows: Path | str | RowSource, tokenizer: "Tokenizer") -> list[Prompt]:
    """The prompts of a file or data set: of instructions without the last completion, of preferences as they are.

    Raises `StageError` that names a row without a prompt."""
    return [render_prompt(tokenizer, messages, facts) for messages, facts in ExampleFiles(rows, "prompts").examples()]
