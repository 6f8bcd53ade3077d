"""Trees of messages, as OpenAssistant gathered them (Köpf et al. 2023), taken apart into conversations or pairs.

Nested, a tree a row (`message_tree_id` and `prompt`, each message with its `replies`), or flat, a message a row
(`message_id`, `parent_id`). People have ranked the replies to a message: rank 0 is the best. A tree is one conversation
that follows the best reply at each turn; and at each message of a user on any path, the best reply of the assistant is
preferred to each other that has a rank. Messages that were deleted or that reviewers rejected are left out with all
below them.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from maquette.artifacts import StageError
from maquette.artifacts.progress import say
from maquette.artifacts.reading import short
from maquette.corpus.sources.row_files import Rows
from maquette.data.row_messages import check_keys, number_of

_TREE = frozenset({"message_tree_id", "prompt"})
_MESSAGE = frozenset({"message_id", "parent_id", "text", "role"})
_ABOUT = "labels emojis detoxify review_count synthetic created_date tree_state events"
_READ = {"message_id", "parent_id", "text", "role", "replies", "rank", "deleted", "review_result", *_ABOUT.split()}
"""Keys of a message: what is read here, and what people and models have said of it."""

_DEEPEST = 100

Thread = Mapping[str, Any]
"""A message with its `replies`."""


def taken_apart(rows: Rows, kind: str) -> Rows:
    """The rows, with each tree in the place of its row as the conversation that it holds, or the pairs (`kind`
    preferences or labels). Raises `StageError` that names the row of a message that is none."""
    one = _pairs if kind in ("preferences", "labels") else _conversation
    left_out = 0
    for place, row in rows:
        if row.keys() >= _MESSAGE:
            trees, left_out = _joined(itertools.chain([(place, row)], rows))
            for where, tree in trees:
                yield from one(tree, where)
        elif row.keys() >= _TREE and isinstance(row["prompt"], dict) and "text" in row["prompt"]:
            check_keys(row, {*_TREE, "tree_state", "origin"}, place)
            remaining, lost = _cleaned(row["prompt"], place)
            left_out += lost
            if remaining is not None:
                yield from one(remaining, place)
        else:
            yield place, row
    if left_out:
        say(f"{left_out:,} messages of trees left out: deleted or rejected, or below one that is")


def _joined(rows: Rows) -> tuple[list[tuple[str, Thread]], int]:
    """Trees of flat messages in the order of their roots, each with its root's place; and how many were left out."""
    messages: dict[Any, dict[str, Any]] = {}
    roots, places = [], {}
    for place, row in rows:
        if not row.keys() >= _MESSAGE:
            raise StageError(f"{place} is not a message of a tree, as the rows before it are.", "Keep shapes apart.")
        for key in ("message_id", "parent_id"):
            if not isinstance(row[key], str | int | float | None):
                raise StageError(f"{place}: {key} must be a text, got {short(repr(row[key]), 60)}.")
        messages[row["message_id"]] = {**row, "replies": []}
        places[row["message_id"]] = place
    for name, message in messages.items():
        parent = message["parent_id"]
        if parent is None or parent == "" or parent != parent:
            roots.append(name)
        elif parent in messages:
            messages[parent]["replies"].append(message)
    checked = [(places[name], _cleaned(messages[name], places[name])[0]) for name in roots]
    trees = [(place, tree) for place, tree in checked if tree is not None]
    return trees, len(messages) - sum(_size(tree) for _, tree in trees)


def _size(tree: Thread) -> int:
    return 1 + sum(map(_size, tree["replies"]))


def _cleaned(message: Any, place: str, depth: int = 0) -> tuple[Thread | None, int]:
    """A message with those below it that count, best replies first; and how many do not."""
    if depth > _DEEPEST:
        raise StageError(f"{place}: the tree has more than {_DEEPEST} replies below each other.", "Remove the row.")
    if not isinstance(message, dict) or not isinstance(message.get("text"), str):
        raise StageError(f"{place}: a message of the tree has no text, but {short(repr(message), 60)}.")
    check_keys(message, _READ, place, "a message of a tree")
    replies = [_cleaned(reply, place, depth + 1) for reply in message.get("replies") or []]
    lost = sum(count for _, count in replies)
    if message.get("deleted") or message.get("review_result") in (False, 0):
        return None, lost + 1 + sum(_size(reply) for reply, _ in replies if reply is not None)
    remaining = sorted((reply for reply, _ in replies if reply is not None), key=_rank)
    rank = number_of(message, "rank", place) if message.get("rank") == message.get("rank") else None
    return {**message, "rank": math.inf if rank is None else rank, "replies": remaining}, lost


def _rank(message: Thread) -> float:
    rank: float = message["rank"]
    return rank


def _turn(message: Thread) -> dict[str, Any]:
    return {"role": message.get("role"), "content": message["text"]}


def _conversation(tree: Thread, place: str) -> Rows:
    """The path of the best replies, up to the last of the assistant; none where nobody has replied."""
    path = [tree]
    while path[-1]["replies"]:
        path.append(path[-1]["replies"][0])
    if path[-1].get("role") == "prompter":
        path.pop()
    if path:
        yield place, {"messages": [_turn(message) for message in path]}


def _pairs(tree: Thread, place: str, before: tuple[Thread, ...] = ()) -> Rows:
    path = (*before, tree)
    if tree.get("role") == "prompter":
        ranked = [reply for reply in tree["replies"] if _rank(reply) < math.inf]
        for other in ranked[1:]:
            if _rank(other) > _rank(ranked[0]):
                yield (
                    place,
                    {
                        "prompt": [_turn(message) for message in path],
                        "chosen": [_turn(ranked[0])],
                        "rejected": [_turn(other)],
                    },
                )
    for reply in tree["replies"]:
        yield from _pairs(reply, place, path)
