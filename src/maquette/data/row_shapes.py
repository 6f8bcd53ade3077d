"""From a row of a data file to messages: whatever a row says is used, known as bookkeeping, or refused by name.

Files are written by others in many shapes. What would be lost in silence is an error that names file, line and key:
a key that nothing here reads, a request that is told twice, two turns of one role in a row, a conversation in the shape
of another library.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.reading import short
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

INSTRUCTION_KEYS = frozenset({"messages", "instruction", "input", "output", "system", "history"})
PREFERENCE_KEYS = frozenset({"prompt", "chosen", "rejected", "system", "annotator", "margin", "probability", "facts"})
PROMPT_KEYS = INSTRUCTION_KEYS | PREFERENCE_KEYS

INSTRUCTION_ROWS = 'Known are {"messages": [...]} and {"instruction", "input", "output"}.'
PREFERENCE_ROW = 'A row looks like {"prompt": [...], "chosen": [...], "rejected": [...], "annotator": "..."}.'

_OTHER_SHAPES: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"conversations"}), "ShareGPT", "turns with from and value"),
    (frozenset({"prompt", "completion", "label"}), "KTO", "one completion with a label, not a pair"),
    (frozenset({"prompt", "completion"}), "TRL", "prompt and completion"),
    (frozenset({"message_tree_id"}), "OpenAssistant", "trees of messages"),
    (frozenset({"message_id", "parent_id"}), "OpenAssistant", "a message a row"),
    (frozenset({"instruction", "response"}), "Dolly", "context and response"),
    (frozenset({"question", "chosen"}), "Orca's preferences", "question is the prompt"),
    (frozenset({"prompt", "responses"}), "a ranking", "more than two completions"),
    (frozenset({"instruction", "completions"}), "a ranking", "more than two completions"),
    (frozenset({"conversation_a", "conversation_b"}), "an arena", "maquette ratings reads it"),
)
"""Keys by which the shape of another library is known, its name, and what it is."""

_TRAINED = ("weight", "train")
"""Keys of a message that say whether it is learned: of OpenAI's fine-tuning files, and of axolotl."""


def check_keys(row: Mapping[Any, Any], known: Collection[str], place: str, of: str = "a row") -> None:
    """Raises `StageError` for a key that has a value and that nobody reads."""
    for key, value in row.items():
        name = str(key)
        if name in known or _is_empty(value) or is_bookkeeping(name):
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
    """Messages as a row has them, checked. `weights`: whether a turn may be left out of what is learned. Raises
    `StageError` that names the place."""
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise StageError(f"{place}: messages must be a list of objects.", 'Write [{"role": "user", "content": "..."}].')
    messages = [_message(message, f"{place}, message {number}", weights) for number, message in enumerate(value, 1)]
    check_turns(messages, place)
    return messages


def check_turns(messages: Sequence[Message], place: str) -> None:
    """`chat.check`, whose error begins with the place."""
    try:
        check(messages)
    except StageError as error:
        raise StageError(f"{place}: {error.message}", error.hint) from None


def _message(given: dict[str, Any], place: str, weights: bool) -> Message:
    check_keys(given, {"role", "content", *_TRAINED}, place, "a message")
    message: Message = {"role": given.get("role"), "content": given.get("content")}  # type: ignore[typeddict-item]
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


# Instructions ---------------------------------------------------------------------------------------------------------


def messages_of(row: dict[str, Any], place: str) -> list[Message]:
    """The conversation of a row. Raises `StageError` where it is none or has no completion to learn."""
    if row.get("messages") or ("messages" in row and "instruction" not in row):
        known = {"messages", "system"}
        messages = _with_system(row, read_messages(row["messages"], place, weights=True), place)
        known |= _repeats(row, "prompt", messages)
    elif "instruction" in row and "output" in row:
        known = {"instruction", "input", "output", "system", "history"}
        messages = [*alpaca_prompt(row, place), {"role": "assistant", "content": text_of(row, "output", place)}]
        known |= {"text"} if str(row["output"]) in str(row.get("text")) else set()  # Alpaca's own, filled in
        check_turns(messages, place)
    else:
        raise _unknown_shape(row, place, "conversation", INSTRUCTION_ROWS)
    check_keys(row, known, place)
    if not any(message["role"] == "assistant" for message in messages):
        raise StageError(f"{place} has no answer.", "At least one message has to be the assistant's.")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in messages):
        raise StageError(f"{place} has no answer to learn: each has weight 0.", "Remove the row.")
    return messages


def alpaca_prompt(row: dict[str, Any], place: str) -> list[Message]:
    """Instruction and input are one request, the input below an empty line (Taori et al. 2023). Before it come
    `system` and `history`, pairs of a request and a completion, as LLaMA-Factory has them."""
    messages: list[Message] = []
    history = row.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in history
    ):
        raise StageError(f"{place}: history must be pairs of texts, a request and a completion.")
    for asked, answered in history:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    texts = [text_of(row, key, place) for key in ("instruction", "input")]
    messages.append({"role": "user", "content": "\n\n".join(text for text in texts if text)})
    return _with_system(row, messages, place)


def _with_system(row: dict[str, Any], messages: list[Message], place: str) -> list[Message]:
    """The messages with the row's own `system` before them."""
    system = text_of(row, "system", place)
    if not system or messages[0] == {"role": "system", "content": system}:
        return messages
    if messages[0]["role"] == "system":
        raise StageError(f"{place}: system is not the system message of its messages.", "Keep one of them.")
    return [{"role": "system", "content": system}, *messages]


def _repeats(row: dict[str, Any], key: str, messages: Sequence[Message]) -> set[str]:
    """The key where it only repeats what a user says, as `prompt` beside `messages` does in UltraChat."""
    texts = [message["content"] for message in messages if message["role"] == "user"]
    return {key} if row.get(key) in texts or row.get(key) == list(messages) else set()


# Preferences and prompts ----------------------------------------------------------------------------------------------


def pair_of(row: dict[str, Any], place: str) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected completion of a row, the prompt once. Raises `StageError` where it is no pair.

    `chosen` and `rejected` continue the prompt; or both are whole conversations (UltraFeedback, HH-RLHF), whose
    common beginning is the prompt, given beside them or not."""
    missing = [key for key in ("chosen", "rejected") if key not in row]
    if missing:
        if not row.get("prompt"):
            missing.insert(0, "prompt")
        raise _unknown_shape(row, place, "preference", PREFERENCE_ROW, f"{' and '.join(missing)} missing")
    chosen, rejected = (_side(row, key, place) for key in ("chosen", "rejected"))
    for key, part in (("chosen", chosen), ("rejected", rejected)):
        if part[-1]["role"] != "assistant":
            raise StageError(
                f"{place}: {key} does not end with a completion of the assistant.", "It continues the prompt."
            )
    prompt = _prompt(row["prompt"], f"{place}, prompt") if row.get("prompt") else []
    whole = [part[0]["role"] != "assistant" for part in (chosen, rejected)]
    if any(whole):
        if not all(whole):
            raise StageError(
                f"{place}: only one of chosen and rejected is a whole conversation.", "Give both without the prompt."
            )
        common, chosen, rejected = _parted(chosen, rejected, place)
        if prompt and not _is_told(prompt, common):
            raise StageError(
                f"{place}: chosen and rejected are whole conversations that do not begin with prompt.",
                "Leave prompt out, or give only the completions.",
            )
        prompt = common
    if not prompt:
        raise _unknown_shape(row, place, "preference", PREFERENCE_ROW, "prompt missing")
    prompt = _with_system(row, prompt, place)
    for key, part in (("chosen", chosen), ("rejected", rejected)):
        check_turns([*prompt, *part], f"{place}, {key} after the prompt")
    asked = prompt[-1]["content"].strip()
    if len(asked) >= _LONG and all(part[0]["content"].lstrip().startswith(asked) for part in (chosen, rejected)):
        raise StageError(f"{place}: chosen and rejected repeat the prompt.", "Give only what comes after it.")
    same = bool(row.get("messages")) and read_messages(row["messages"], place) == [*prompt, *chosen]
    check_keys(row, PREFERENCE_KEYS | ({"messages"} if same else set()), place)
    return prompt, chosen, rejected


_LONG = 10
"""Characters of a prompt that no two completions begin with by chance."""


def prompt_of(row: dict[str, Any], place: str) -> list[Message]:
    """The messages before a completion: of an instruction without its last one, of a preference, Alpaca's. Raises
    `StageError` where the row has none."""
    check_keys(row, PROMPT_KEYS, place)
    if "chosen" in row and "rejected" in row:
        return pair_of(row, place)[0]
    if isinstance(row.get("instruction"), str):
        return alpaca_prompt(row, place)
    given = row.get("prompt") or row.get("messages")
    if not given:
        raise _unknown_shape(
            row, place, "prompt", 'A row has "prompt" or "messages" (a list of turns), or "instruction".'
        )
    messages = _prompt(given, place)
    if row.get("prompt") and row.get("messages"):
        check_keys(row, PROMPT_KEYS - {"messages"} | _repeats(row, "prompt", _prompt(row["messages"], place)), place)
    if messages[-1]["role"] == "assistant":
        del messages[-1]
    if not messages:
        raise StageError(f"{place} has no prompt: only a completion.")
    return _with_system(row, messages, place)


def _prompt(given: Any, place: str) -> list[Message]:
    """A prompt as text or as messages; which of them are learned says nothing here."""
    if isinstance(given, str):
        return _dialogue(given) or [{"role": "user", "content": given}]
    messages = read_messages(given, place, weights=True)
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _side(row: dict[str, Any], key: str, place: str) -> list[Message]:
    given = row[key]
    if isinstance(given, str):
        return _dialogue(given) or [{"role": "assistant", "content": given}]
    return read_messages([given] if isinstance(given, dict) else given, f"{place}, {key}")


def _dialogue(text: str) -> list[Message]:
    """The turns of a text in the form of HH-RLHF (Bai et al. 2022), without an empty last one; none of other texts."""
    if not re.match(r"\s*Human: ", text) or "\n\nAssistant:" not in text:
        return []
    pieces = re.split(r"(?:^|\n\n)(Human|Assistant):", text.strip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns: list[Message] = [
        {"role": roles[name], "content": content.strip()}
        for name, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    return turns if turns[-1]["content"] else turns[:-1]


def _parted(
    chosen: list[Message], rejected: list[Message], place: str
) -> tuple[list[Message], list[Message], list[Message]]:
    """The common beginning of two conversations up to a completion, and what each goes on with."""
    most = min(len(chosen), len(rejected)) - 1
    same = next((number for number in range(most) if chosen[number] != rejected[number]), most)
    if not same or chosen[same]["role"] != "assistant" or rejected[same]["role"] != "assistant":
        raise StageError(
            f"{place}: chosen and rejected are not completions of one prompt: they differ at message {same + 1}, "
            f"the {chosen[same]['role']}'s.",
            "Both begin with the same messages, and end with a completion of the assistant.",
        )
    return chosen[:same], chosen[same:], rejected[same:]


def _is_told(prompt: list[Message], common: list[Message]) -> bool:
    """Whether the common beginning of two conversations tells the prompt: the same messages (perhaps below a system
    message), or a text that its user says."""
    without = [message for message in common if message["role"] != "system"]
    if prompt in (common, without):
        return True
    texts = {message["content"].strip() for message in without if message["role"] == "user"}
    return len(prompt) == 1 and prompt[0]["content"].strip() in texts


def _unknown_shape(row: dict[str, Any], place: str, what: str, hint: str, why: str = "") -> StageError:
    for keys, whose, note in _OTHER_SHAPES:
        if keys <= row.keys():
            note = f" ({note})" if note else ""
            return StageError(f"{place} has the shape of {whose}{note}, which is not read as a {what}.", hint)
    keys_here = short(", ".join(map(repr, row)) or "no keys")
    return StageError(f"{place} is not a {what}: {why or f'it has {keys_here}'}.", hint)


def text_of(row: Mapping[str, Any], key: str, place: str) -> str:
    """The text at a key, empty where there is none."""
    text = row.get(key) or ""
    if not isinstance(text, str):
        raise StageError(f"{place}: {key} must be a text, got {short(repr(text), 60)}.")
    return text
