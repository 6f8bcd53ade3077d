"""Messages as the rows of a file have them, in whatever names; and the keys of a row that nobody reads.

A turn is `{"role", "content"}` or ShareGPT's `{"from", "value"}`; its content a text, or OpenAI's list of parts that
are texts. What would be lost in silence is an error that names file, line and key.
"""

import contextlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.reading import parse_json, short
from maquette.artifacts.settings import nearest
from maquette.text.chat import Message, check

_NAMES = (
    "at category chosen_model chosen_rating chosen_score comment created created_at dataset dataset_name date "
    "difficulty domain hash id idx ind index lang language length license meta metadata model model_name num_tokens "
    "num_turns origin qid quality rating rejected_model rejected_rating rejected_score score score_chosen "
    "score_rejected scores source sources src subject tag tags task timestamp topic tstamp url uuid version"
)
BOOKKEEPING = frozenset(_NAMES.split())
"""Columns about a row that no training or test reads; so are names that end in `_id`, and an index without a name."""

_ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "developer": "system",
}  # fmt: skip
"""Other names of the three roles: of ShareGPT, OpenAssistant, Gemini and newer OpenAI rows."""

_TRAINED = ("weight", "train")
"""Keys of a message that say whether it is learned: of OpenAI's fine-tuning files, and of axolotl."""


def check_keys(
    row: Mapping[Any, Any], known: Collection[str], place: str, of: str = "a row", unread: set[str] | None = None
) -> None:
    """Raises `StageError` for a key that has a value and that nobody reads. Bookkeeping's are added to `unread`."""
    for key, value in row.items():
        name = str(key)
        if name in known or _is_empty(value):
            continue
        if is_bookkeeping(name):
            if unread is not None:
                unread.add(name)
            continue
        close = nearest(name, sorted(known))
        hint = f"Did you mean '{close}'? " if close else ""
        raise StageError(
            f"{place}: {short(repr(name), 60)} is not a key of {of} that is understood.",
            f"{hint}Known: {', '.join(sorted(known))}; remove it, if it does not matter.",
        )


def is_bookkeeping(name: str) -> bool:
    name = name.strip().lower()
    return name in BOOKKEEPING or name.endswith("_id") or not name or name.startswith("unnamed: ")


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value) or value != value


def read_messages(value: Any, place: str, *, weights: bool = False) -> list[Message]:
    """Messages as a row has them, or as JSON text of them, checked. `weights`: whether a turn may be left out of what
    is learned. Raises `StageError` that names the place."""
    if isinstance(value, str) and is_json_list(value):
        value = parse_json(value, place)
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise StageError(f"{place}: messages must be a list of objects.", 'Write [{"role": "user", "content": "..."}].')
    messages = [_message(message, f"{place}, message {number}", weights) for number, message in enumerate(value, 1)]
    check_turns(messages, place)
    return messages


def is_json_list(text: str) -> bool:
    """Whether a text, as a cell of a CSV file, is JSON of a list of objects."""
    return re.match(r'\s*\[\s*\{\s*"', text) is not None


def check_turns(messages: Sequence[Message], place: str) -> None:
    """`chat.check`, whose error begins with the place."""
    try:
        check(messages)
    except StageError as error:
        raise StageError(f"{place}: {error.message}", error.hint) from None


def _message(given: dict[str, Any], place: str, weights: bool) -> Message:
    role, content = ("from", "value") if "from" in given and "role" not in given else ("role", "content")
    check_keys(given, {role, content, *_TRAINED}, place, "a message")
    name = given.get(role)
    known: Any = _ROLES.get(name, name) if isinstance(name, str) else name
    message: Message = {"role": known, "content": _text(given.get(content), place)}
    for key in _TRAINED:
        value = given.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise StageError(f"{place}: {key} must be 0 or 1, got {short(repr(value), 60)}.")
        if bool(value) != (message["role"] == "assistant"):
            if message["role"] != "assistant" or not weights:
                raise StageError(
                    f"{place}: {key} is {value!r}.",
                    "Only completions of the assistant are learned; leave it out." if value
                    else "Only instructions can leave a completion out.",
                )  # fmt: skip
            message["weight"] = 0
    return message


def _text(content: Any, place: str) -> Any:
    """The content, its parts joined where it is a list of texts. Raises `StageError` for a picture among them."""
    if not isinstance(content, list):
        return content
    for number, part in enumerate(content, 1):
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise StageError(f"{place}: part {number} of its content is not text but {short(repr(kind), 40)}.")
        check_keys(part, {"type", "text"}, f"{place}, part {number}", "a part")
    return "".join(part["text"] for part in content)


def read_dialogue(text: str) -> list[Message]:
    """The turns of a text in the form of HH-RLHF (Bai et al. 2022), without an empty last one; none of other texts."""
    if not re.match(r"\s*Human: ", text) or "\n\nAssistant:" not in text:
        return []
    pieces = re.split(r"(?:^|\n\n)(Human|Assistant):", text.strip())[1:]
    turns: list[Message] = [
        {"role": "user" if name == "Human" else "assistant", "content": content.strip()}
        for name, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    return turns if turns[-1]["content"] else turns[:-1]


def text_of(row: Mapping[str, Any], key: str, place: str) -> str:
    """The text at a key, empty where there is none."""
    text = row.get(key) or ""
    if not isinstance(text, str):
        raise StageError(f"{place}: {key} must be a text, got {short(repr(text), 60)}.")
    return text


def number_of(
    row: Mapping[str, Any], key: str, place: str, *, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """The number at a key, also as the text of a CSV file; None where there is none. Raises `StageError` for another
    value."""
    value = row.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        got = short(repr(value), 60)
        raise StageError(f"{place}: {key} must be a number, got {got}.", "Leave it out where it is unknown.")
    if not low <= value <= high:
        raise StageError(f"{place}: {key} is {value:g}.", f"Allowed: {low:g} to {high:g}.")
    return float(value)


def shown_row(row: Mapping[Any, Any]) -> str:
    """A row as an error shows it: its keys, each with what is there."""
    return ", ".join(f"{short(repr(key), 40)}: {_shown(value)}" for key, value in row.items()) or "no keys"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" + (f", first {_shown(value[0])}" if value else "")
    if isinstance(value, dict):
        return f"an object with {short(', '.join(map(str, value)), 60)}"
    return short(repr(value), 40)
