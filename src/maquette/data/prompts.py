"""Prompts that a policy completes: an order over them that is a pure function of (seed, number), so that it resumes.

A prompt is rendered once, with the assistant's turn opened. One that leaves no room for a completion is left out and
counted, never cut.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from maquette.artifacts import StageError
from maquette.artifacts.reading import short
from maquette.corpus.sources.files import json_files, read_rows
from maquette.data.order import Reshuffled
from maquette.data.row_shapes import prompt_of
from maquette.text import chat
from maquette.text.chat import Message

if TYPE_CHECKING:
    from maquette.text import Tokenizer


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
