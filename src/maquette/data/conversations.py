"""Instructions, preferences and prompts: conversations to imitate, pairs of completions to compare, requests to
complete; from JSON files or from any other source that gives them.

An instruction is `{"messages": [{"role": ..., "content": ...}, ...]}`, or as in Alpaca `{"instruction", "input",
"output"}`; a message of `"weight": 0` (or `"train": false`) is read, but not learned. A preference is `{"prompt":
messages, "chosen": messages, "rejected": messages, "annotator": name, "margin": number?}`; plain text in the place of
messages is a request of the user or a completion of the assistant. Where `chosen` and `rejected` are whole
conversations, their common beginning is the prompt. `probability`, where it is known, says how likely the annotator (or
what share of several) prefers `chosen`. `facts` is what the prompt's source knows of it: with them the gold reward of
any completion can be computed.

A prompt is rendered once, with the assistant's turn opened. One that leaves no room for a completion is left out and
counted, never cut. Their order is a pure function of (seed, number), so that it resumes.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, file_digest, write_text
from maquette.artifacts.manifest import verify_file
from maquette.artifacts.reading import short
from maquette.corpus.sources.files import json_files, read_rows
from maquette.data.order import Reshuffled
from maquette.data.row_shapes import messages_of, pair_of, prompt_of, text_of
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


class ExampleSource(Protocol):
    """Where instructions or preferences come from. `label`: short, for names; `inputs`: digests of all that decides
    what comes."""

    label: str

    def inputs(self) -> dict[str, str]: ...

    def examples(self) -> Iterable[Any]: ...


_VERSION = 2
"""Of how rows are read: raise it when the same file gives other examples, so that they are encoded again."""


class ExampleFiles:
    """A JSON file, or all below a folder, of `kind` `instructions` or `preferences`."""

    def __init__(self, path: Path | str, kind: str) -> None:
        self._files, self._kind = json_files(path, kind), kind
        self.label = Path(path).expanduser().resolve().name.partition(".")[0]

    def inputs(self) -> dict[str, str]:
        return {"files": digest([_VERSION, *(file_digest(file) for file in self._files)])}

    def examples(self) -> Iterator[Any]:
        """In the files' order. Raises `StageError` with file, line and reason for a row of another shape."""
        for file in self._files:
            verify_file(file)
        for place, row in read_rows(self._files, self._kind):
            yield (
                Instruction(messages_of(row, place), place)
                if self._kind == "instructions"
                else preference_of(row, place)
            )


def read_preferences(path: Path | str) -> list[Preference]:
    """All of a file, or of a folder's files. Raises `StageError` that names the line that is wrong."""
    return list(ExampleFiles(path, "preferences").examples())


def write_preferences(path: Path | str, preferences: Iterable[Preference]) -> int:
    """Writes a file, whole or not at all, and returns how many lines it has."""
    lines = [json.dumps(one.row(), ensure_ascii=False) for one in preferences]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def preference_of(row: dict[str, Any], place: str) -> Preference:
    """The preference of a row. Raises `StageError` where it is none."""
    prompt, chosen, rejected = pair_of(row, place)
    facts = row.get("facts") or {}
    if not isinstance(facts, dict):
        raise StageError(f"{place}: facts must be an object, got {facts!r:.60}.", "Leave them out where unknown.")
    return Preference(
        prompt,
        chosen,
        rejected,
        annotator=text_of(row, "annotator", place),
        margin=_number(row, "margin", place, low=-math.inf, high=math.inf),
        probability=_number(row, "probability", place, low=0.0, high=1.0),
        facts=facts,
        place=place,
    )


def _number(row: dict[str, Any], key: str, place: str, *, low: float, high: float) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StageError(f"{place}: {key} must be a number, got {value!r:.60}.", "Leave it out where it is unknown.")
    if not low <= value <= high:
        raise StageError(f"{place}: {key} is {value:g}.", f"Allowed: {low:g} to {high:g}.")
    return float(value)


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


def read_prompts(path: Path | str, tokenizer: "Tokenizer") -> list[Prompt]:
    """The prompts of a file: of instructions without the last completion, of preferences as they are; Alpaca's too.

    Raises `StageError` that names a row without a prompt."""
    return [render_prompt(tokenizer, messages, facts) for messages, facts in prompt_rows(path)]


def prompt_rows(path: Path | str) -> Iterator[tuple[list[Message], Mapping[str, Any]]]:
    """Messages and facts of each row. Raises `StageError` that names a row without a prompt."""
    for place, row in read_rows(json_files(path, "prompts"), "prompts"):
        facts = row.get("facts") or {}
        if not isinstance(facts, dict):
            raise StageError(f"{place}: facts must be an object, got {short(repr(facts), 60)}.")
        yield prompt_of(row, place), facts
