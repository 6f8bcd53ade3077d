"""Instructions: conversations to imitate, from JSON files or from any other source that gives them.

A row is `{"messages": [{"role": ..., "content": ...}, ...]}`, or as in Alpaca `{"instruction", "input", "output"}`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, file_digest
from maquette.corpus.sources.files import json_files, read_rows
from maquette.text.chat import Message, check

_KNOWN = 'Known are {"messages": [...]} and {"instruction", "input", "output"}.'


@dataclass(frozen=True)
class Instruction:
    """A conversation with at least one answer. `place` says where it was found, for messages about it; `split` is train
    or validation, None where the reader is to choose."""

    messages: list[Message]
    place: str = ""
    split: str | None = None


class InstructionSource(Protocol):
    """Where instructions come from. `label`: short, for names; `inputs`: digests of all that decides what comes."""

    label: str

    def inputs(self) -> dict[str, str]: ...

    def instructions(self) -> Iterable[Instruction]: ...


class InstructionFiles:
    """A JSON file, or all below a folder."""

    def __init__(self, path: Path | str) -> None:
        self._files = json_files(path, "instructions")
        self.label = Path(path).expanduser().resolve().name.partition(".")[0]

    def inputs(self) -> dict[str, str]:
        return {"files": digest([file_digest(file) for file in self._files])}

    def instructions(self) -> Iterator[Instruction]:
        """In the files' order. Raises `StageError` with file, line and reason for a row that is no conversation."""
        for place, row in read_rows(self._files, "instructions"):
            yield Instruction(messages_of(row, place), place)


def messages_of(row: dict[str, Any], place: str) -> list[Message]:
    """The conversation of a row. Raises `StageError` where it is none or has no answer."""
    if "messages" in row:
        messages = read_messages(row["messages"], place)
    elif "instruction" in row and "output" in row:
        messages = _alpaca(row, place)
    else:
        raise StageError(f"{place} is no conversation: it has {', '.join(map(repr, row)) or 'no keys'}.", _KNOWN)
    if not any(message["role"] == "assistant" for message in messages):
        raise StageError(f"{place} has no answer.", "At least one message has to be the assistant's.")
    return messages


def read_messages(value: Any, place: str) -> list[Message]:
    """Messages as a row has them, checked. Raises `StageError` that names the place."""
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise StageError(f"{place}: messages are no list of objects.", 'Write [{"role": "user", "content": "..."}].')
    messages: list[Message] = [{"role": message.get("role"), "content": message.get("content")} for message in value]
    _named(lambda: check(messages), place)
    return messages


def _alpaca(row: dict[str, Any], place: str) -> list[Message]:
    """Instruction and input are one request, the input below an empty line (Taori et al. 2023)."""
    texts = {key: row.get(key) or "" for key in ("instruction", "input", "output")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise StageError(f"{place}: {key} is no text but {text!r:.60}.")
    request = "\n\n".join(text for text in (texts["instruction"], texts["input"]) if text)
    return [{"role": "user", "content": request}, {"role": "assistant", "content": texts["output"]}]


def _named(action: Callable[[], None], place: str) -> None:
    try:
        action()
    except StageError as error:
        raise StageError(f"{place}: {error.message}", error.hint) from None
