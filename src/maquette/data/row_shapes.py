"""From a row of a data file to conversations: a table of the shapes that others write, and one reader for each kind.

A shape is known by its keys. Whatever else a row says is bookkeeping, or refused by name: what would be lost in silence
is an error that names file, line and key, as is a request that is told twice, or two turns of one role in a row. A row
of no known shape is shown as it was understood. Trees of messages are taken apart before (message_trees.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.reading import short
from maquette.data.row_messages import (
    check_keys,
    check_turns,
    is_json_list,
    number_of,
    read_dialogue,
    read_messages,
    shown_row,
    text_of,
)
from maquette.text.chat import Message

Unread = set[str] | None
"""Where the names of columns that are only bookkeeping are gathered."""


@dataclass(frozen=True)
class TurnShape:
    """A request and its completion in one row: `request` names the columns whose texts, below each other, are the
    request (the first has to be there), `answer` the completion's."""

    name: str
    request: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class PairShape:
    """Two completions of one request. `better`: the column that says which is preferred, and its values where that is
    the first and the second; without one the first is. `also`: columns about the pair."""

    name: str
    request: tuple[str, ...]
    first: str
    second: str
    better: tuple[str, int, int] | None = None
    also: frozenset[str] = frozenset()


LISTS = {"messages": "OpenAI", "conversations": "ShareGPT"}
"""Columns that hold a whole conversation, and whose they are."""

TURNS = (
    TurnShape("Alpaca", ("instruction", "input"), "output"),
    TurnShape("Dolly", ("instruction", "context"), "response"),
    TurnShape("TRL", ("prompt",), "completion"),
    TurnShape("prompt and response", ("prompt",), "response"),
    TurnShape("question and answer", ("question",), "answer"),
    TurnShape("query and response", ("query",), "response"),
)

_SHP = (
    "upvote_ratio score_A score_B score_ratio seconds_difference created_at_utc_A created_at_utc_B c_root_id_A "
    "c_root_id_B"
)
PAIRS = (
    PairShape("UltraFeedback, HH-RLHF, Tülu", ("prompt",), "chosen", "rejected"),
    PairShape("Orca", ("question",), "chosen", "rejected"),
    PairShape("LLaMA-Factory", ("instruction", "input"), "chosen", "rejected"),
    PairShape("LLaMA-Factory", ("conversations",), "chosen", "rejected"),
    PairShape("AlpacaFarm", ("instruction", "input"), "output_1", "output_2", ("preference", 1, 2)),
    PairShape("Stack Exchange", ("question",), "response_j", "response_k"),
    PairShape("SHP", ("history",), "human_ref_A", "human_ref_B", ("labels", 1, 0), frozenset(_SHP.split())),
    PairShape("OpenAI", ("input",), "preferred_output", "non_preferred_output"),
)

SCORES = ("score_chosen", "score_rejected")
"""Whose difference is the margin of a pair without one."""

INSTRUCTION_KEYS = frozenset(LISTS) | {"system", "history"}
INSTRUCTION_KEYS |= {key for shape in TURNS for key in (*shape.request, shape.answer)}
_ABOUT_PAIRS = frozenset({"system", "history", "annotator", "margin", "probability", "facts", *SCORES})
PROMPT_KEYS = INSTRUCTION_KEYS | _ABOUT_PAIRS | {"label"}

_OTHER_SHAPES: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"prompt", "completion", "label"}), "KTO", "one completion with a label, not a pair"),
    *((frozenset({one.request[0], one.first, one.second}), one.name, f"{one.first} and {one.second}") for one in PAIRS),
    *((frozenset({one.request[0], one.answer}), one.name, f"{one.request[0]} and {one.answer}") for one in TURNS),
    *((frozenset({key}), name, key) for key, name in LISTS.items()),
    (frozenset({"prompt", "responses"}), "a ranking", "more than two completions"),
    (frozenset({"instruction", "completions"}), "a ranking", "more than two completions"),
    (frozenset({"conversation_a", "conversation_b"}), "an arena", "maquette ratings reads it"),
)
"""Keys by which a shape is known that the reader at hand does not take, its name, and what it is."""

_PAGE = "docs/tutorials/own_data.md shows a row of each known shape."
INSTRUCTION_ROWS = f'Known are {{"messages": [...]}} and {{"instruction", "input", "output"}}; {_PAGE}'
PREFERENCE_ROW = f'A row looks like {{"prompt": [...], "chosen": [...], "rejected": [...]}}; {_PAGE}'
LABELLED_ROW = f'A row looks like {{"prompt": [...], "completion": [...], "label": true}}; {_PAGE}'
PROMPT_ROW = f'A row has "prompt" or "messages" (a list of turns), or "instruction"; {_PAGE}'


# Instructions ---------------------------------------------------------------------------------------------------------


def messages_of(row: dict[str, Any], place: str, unread: Unread = None) -> list[Message]:
    """The conversation of a row. Raises `StageError` where it is none or has no completion to learn."""
    column, shape = _list_of(row), _turn_shape(row)
    if column is not None and (row[column] or shape is None):
        messages = _with_system(row, read_messages(row[column], place, weights=True), place)
        known = {column, "system"} | _repeats(row, "prompt", messages)
        if _repeats(row, "chosen", messages):  # UltraFeedback, whose messages are the prompt and the chosen completion
            known |= {"chosen", "rejected"}
            (set() if unread is None else unread).update({"chosen", "rejected"})
    elif shape is not None and (shape.answer != "completion" or row.get("label") in (None, "")):  # else KTO's
        known = {*shape.request, shape.answer, "system", "history"}
        messages = [*_request(row, shape.request, place), *_completion(row, shape.answer, place)]
        known |= {"text"} if str(row[shape.answer]) in str(row.get("text")) else set()  # Alpaca's own, filled in
        check_turns(messages, place)
    else:
        raise _unknown_shape(row, place, "conversation", INSTRUCTION_ROWS)
    check_keys(row, known, place, unread=unread)
    if not any(message["role"] == "assistant" for message in messages):
        raise StageError(f"{place} has no answer.", "At least one message has to be the assistant's.")
    if not any(message["role"] == "assistant" and message.get("weight", 1) for message in messages):
        raise StageError(f"{place} has no answer to learn: each has weight 0.", "Remove the row.")
    return messages


def _list_of(row: Mapping[str, Any]) -> str | None:
    """The column that holds a conversation: the first that is not empty, else the first that is there."""
    there = [key for key in LISTS if key in row]
    return next((key for key in there if row[key]), there[0] if there else None)


def _turn_shape(row: Mapping[str, Any]) -> TurnShape | None:
    return next((shape for shape in TURNS if {shape.request[0], shape.answer} <= row.keys()), None)


def _request(row: dict[str, Any], columns: Sequence[str], place: str) -> list[Message]:
    """What stands before a completion: texts below each other are one request (Taori et al. 2023), or messages, or a
    transcript. Before it come `system` and `history`, pairs of a request and a completion (LLaMA-Factory)."""
    messages: list[Message] = []
    history = row.get("history") or []
    if "history" in columns:
        history = []
    elif not isinstance(history, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in history
    ):
        raise StageError(f"{place}: history must be pairs of texts, a request and a completion.")
    for asked, answered in history:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    given = row.get(columns[0])
    if isinstance(given, dict) and "messages" in given:  # OpenAI's input
        check_keys(given, {"messages"}, f"{place}, {columns[0]}", "an input")
        given = given["messages"]
    if _is_list(given):
        messages += _unweighted(read_messages(given, f"{place}, {columns[0]}", weights=True))
    else:
        texts = [text for text in (text_of(row, key, place) for key in columns) if text]
        spoken = read_dialogue(texts[0]) if texts and columns == ("prompt",) else []
        messages += spoken or [{"role": "user", "content": "\n\n".join(texts)}]
    return _with_system(row, messages, place)


def _completion(row: Mapping[str, Any], key: str, place: str) -> list[Message]:
    """A completion as text, as a message, or as messages, which may begin with the prompt; a transcript is whole."""
    given = row[key]
    if isinstance(given, str) and not _is_list(given):
        spoken = read_dialogue(given) if key in ("chosen", "rejected") else []
        if spoken and spoken[-1]["role"] == "user" and given.rstrip().endswith("Assistant:"):
            spoken.append({"role": "assistant", "content": ""})
        return spoken or [{"role": "assistant", "content": given}]
    if given is None and key not in ("chosen", "rejected"):
        return [{"role": "assistant", "content": ""}]
    return read_messages([given] if isinstance(given, dict) else given, f"{place}, {key}")


def _is_list(given: Any) -> bool:
    return isinstance(given, list) or (isinstance(given, str) and is_json_list(given))


def _unweighted(messages: Sequence[Message]) -> list[Message]:
    """Of a prompt: which of its completions are learned says nothing there."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _with_system(row: dict[str, Any], messages: list[Message], place: str) -> list[Message]:
    """The messages with the row's own `system` before them."""
    system = text_of(row, "system", place)
    if not system or messages[0] == {"role": "system", "content": system}:
        return messages
    if messages[0]["role"] == "system":
        raise StageError(f"{place}: system is not the system message of its messages.", "Keep one of them.")
    return [{"role": "system", "content": system}, *messages]


def _repeats(row: dict[str, Any], key: str, messages: Sequence[Message]) -> set[str]:
    """The key where it only repeats what a user says, as `prompt` beside `messages` does in UltraChat, or all."""
    texts = [message["content"] for message in messages if message["role"] == "user"]
    return {key} if row.get(key) in texts or row.get(key) == list(messages) else set()


# Preferences ----------------------------------------------------------------------------------------------------------


def pair_of(
    row: dict[str, Any], place: str, unread: Unread = None
) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected completion of a row, the prompt once. Raises `StageError` where it is no pair.

    `chosen` and `rejected` continue the prompt; or both are whole conversations (UltraFeedback, HH-RLHF), whose
    common beginning is the prompt, given beside them or not."""
    shape = _pair_shape(row)
    if shape is None:
        missing = [key for key in ("chosen", "rejected") if key not in row]
        missing = missing if row.get("prompt") else ["prompt", *missing]
        raise _unknown_shape(row, place, "preference", PREFERENCE_ROW, f"{' and '.join(missing)} missing")
    keys = (shape.first, shape.second) if _first_is_better(row, shape, place) else (shape.second, shape.first)
    chosen, rejected = (_completion(row, key, place) for key in keys)
    for key, part in zip(keys, (chosen, rejected), strict=True):
        if part[-1]["role"] != "assistant":
            raise StageError(
                f"{place}: {key} does not end with a completion of the assistant.", "It continues the prompt."
            )
    prompt = _request(row | {"system": None}, shape.request, place) if row.get(shape.request[0]) else []
    whole = [part[0]["role"] != "assistant" for part in (chosen, rejected)]
    if any(whole):
        if not all(whole):
            raise StageError(
                f"{place}: only one of {keys[0]} and {keys[1]} is a whole conversation.",
                "Give both without the prompt.",
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
    for key, part in zip(keys, (chosen, rejected), strict=True):
        check_turns([*prompt, *part], f"{place}, {key} after the prompt")
    asked = prompt[-1]["content"].strip()
    if len(asked) >= _LONG and all(part[0]["content"].lstrip().startswith(asked) for part in (chosen, rejected)):
        raise StageError(f"{place}: chosen and rejected repeat the prompt.", "Give only what comes after it.")
    known = _ABOUT_PAIRS | {*shape.request, *keys} | shape.also | ({shape.better[0]} if shape.better else set())
    if bool(row.get("messages")) and read_messages(row["messages"], place) == [*prompt, *chosen]:
        known |= {"messages"}
    check_keys(row, known, place, unread=unread)
    return prompt, chosen, rejected


_LONG = 10
"""Characters of a prompt that no two completions begin with by chance."""


def is_pair(row: Mapping[str, Any]) -> bool:
    """Whether a row has two completions to compare."""
    return _pair_shape(row) is not None


def _pair_shape(row: Mapping[str, Any]) -> PairShape | None:
    """The first of `PAIRS` whose columns are all there; whole conversations need no request beside them."""
    there = [shape for shape in PAIRS if {shape.first, shape.second} <= row.keys()]
    with_request = (shape for shape in there if shape.request[0] in row)
    return next(with_request, there[0] if there and there[0] is PAIRS[0] else None)


def _first_is_better(row: Mapping[str, Any], shape: PairShape, place: str) -> bool:
    if shape.better is None:
        return True
    column, first, second = shape.better
    value = number_of(row, column, place)
    if value not in (first, second):
        raise StageError(f"{place}: {column} must be {first} or {second}, got {short(repr(row.get(column)), 60)}.")
    return value == first


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


# One completion with a label, and prompts -----------------------------------------------------------------------------


def labelled_of(row: dict[str, Any], place: str, unread: Unread = None) -> tuple[list[Message], list[Message], bool]:
    """Prompt, completion and whether it is desirable (KTO, Ethayarajh et al. 2024). Raises `StageError` where the row
    is none."""
    if missing := [key for key in ("prompt", "completion", "label") if row.get(key) is None]:
        what = f"{' and '.join(missing)} missing; it has {shown_row(row)}"
        raise StageError(f"{place} is not a labelled completion: {what}.", LABELLED_ROW)
    prompt, completion = _request(row, ("prompt",), place), _completion(row, "completion", place)
    if completion[-1]["role"] != "assistant" or completion[0]["role"] != "assistant":
        raise StageError(f"{place}: completion must be the assistant's alone.", "It continues the prompt.")
    check_turns([*prompt, *completion], f"{place}, completion after the prompt")
    check_keys(row, {"prompt", "completion", "label", "system", "history"}, place, unread=unread)
    label = str(row["label"]).strip().lower()
    if label not in _LABELS:
        raise StageError(f"{place}: label must be true or false, got {short(repr(row['label']), 60)}.")
    return prompt, completion, _LABELS[label]


_LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def prompt_of(row: dict[str, Any], place: str, unread: Unread = None) -> list[Message]:
    """The messages before a completion: of an instruction without its last one, of a preference as it is. Raises
    `StageError` where the row has none."""
    if _pair_shape(row) is not None:
        return pair_of(row, place, unread)[0]
    check_keys(row, PROMPT_KEYS, place, unread=unread)
    column = _list_of(row)
    shape = _turn_shape(row) or next((shape for shape in TURNS if row.get(shape.request[0])), None)
    if shape is not None:
        messages = _request(row, shape.request, place)
    elif column is not None and row[column]:
        messages = _with_system(row, _unweighted(read_messages(row[column], place, weights=True)), place)
    else:
        raise _unknown_shape(row, place, "prompt", PROMPT_ROW)
    if row.get("prompt") and column is not None and row[column]:
        whole = _unweighted(read_messages(row[column], place, weights=True))
        check_keys(row, PROMPT_KEYS - {column} | _repeats(row, "prompt", whole), place)
    if messages[-1]["role"] == "assistant":
        del messages[-1]
    if not messages:
        raise StageError(f"{place} has no prompt: only a completion.")
    return messages


def _unknown_shape(row: dict[str, Any], place: str, what: str, hint: str, why: str = "") -> StageError:
    for keys, whose, note in _OTHER_SHAPES:
        if keys <= row.keys():
            return StageError(f"{place} has the shape of {whose} ({note}), which is not read as a {what}.", hint)
    shown = f"it has {shown_row(row)}"
    return StageError(f"{place} is not a {what}: {f'{why}; ' if why else ''}{shown}.", hint)
