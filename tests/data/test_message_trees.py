"""Trees of OpenAssistant, nested and flat: the best path, the ranked pairs, and what is left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import StageError
from maquette.data.conversations import ExampleFiles


def message(text: str, role: str, *replies: Any, **more: Any) -> dict[str, Any]:
    return {"message_id": text, "text": text, "role": role, "lang": "en", "rank": None, "replies": list(replies)} | more


TREE = message(
    "ask", "prompter",
    message("good", "assistant", message("more?", "prompter", message("sure", "assistant", rank=0), rank=1),
            message("why?", "prompter", message("so", "assistant", rank=0), message("no", "assistant", rank=1), rank=0),
            rank=0),
    message("poor", "assistant", rank=2),
    message("fair", "assistant", rank=1),
    message("unranked", "assistant"),
    message("gone", "assistant", message("lost", "prompter"), rank=3, deleted=True),
)  # fmt: skip
SILENT = message("nobody answered", "prompter")


def nested(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"message_tree_id": tree["message_id"], "tree_state": "ready_for_export", "prompt": tree}]


def flat(tree: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    rest = {key: value for key, value in tree.items() if key != "replies"}
    own = rest | {"parent_id": parent, "labels": {"name": ["spam"]}, "review_result": True, "user_id": "u"}
    return [own, *(row for reply in tree["replies"] for row in flat(reply, tree["message_id"]))]


def read(path: Path, kind: str, rows: list[dict[str, Any]]) -> list[Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(ExampleFiles(path, kind).examples())


def texts(messages: Any) -> list[str]:
    return [one["content"] for one in messages]


@pytest.mark.parametrize("shape", [nested, flat])
def test_a_tree_is_its_best_path_and_its_ranked_pairs(
    tmp_path: Path, shape: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trees.jsonl"
    (one,) = read(path, "instructions", [*shape(TREE), *shape(SILENT)])
    assert texts(one.messages) == ["ask", "good", "why?", "so"] and one.place == f"{path}, line 1"
    assert [turn["role"] for turn in one.messages] == ["user", "assistant"] * 2
    pairs = read(path, "preferences", [*shape(TREE), *shape(SILENT)])
    assert [(texts(one.prompt), texts(one.chosen), texts(one.rejected)) for one in pairs] == [
        (["ask"], ["good"], ["fair"]),
        (["ask"], ["good"], ["poor"]),
        (["ask", "good", "why?"], ["so"], ["no"]),
    ]
    assert texts(read(path, "prompts", shape(TREE))[0][0]) == ["ask", "good", "why?"]
    assert "2 messages of trees left out: deleted or rejected, or below one that is" in capsys.readouterr().err


def test_a_tree_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trees.jsonl"
    for rows, reason in (
        (
            nested(message("ask", "prompter", message("x", "assistant") | {"text": None}, rank=0)),
            "a message of the tree",
        ),
        (nested(message("ask", "prompter", message("x", "prompter"), rank=0)), "line 1 has no answer"),
        (nested(message("ask", "prompter", message("x", "assistant", rank="first"))), "line 1: rank must be a number"),
        (
            nested(message("ask", "prompter", message("x", "assistant", tool="y"))),
            "'tool' is not a key of a me",
        ),
        ([{"message_id": ["x"], "parent_id": None, "text": "x", "role": "prompter"}], "message_id must be a text, got"),
        ([*flat(TREE), {"messages": []}], "line 13 is not a message of a tree"),
    ):
        with pytest.raises(StageError, match=reason):
            read(path, "instructions", rows)
    deep = message("end", "assistant")
    for number in range(150):
        deep = message(str(number), "prompter" if number % 2 == 0 else "assistant", deep)
    with pytest.raises(StageError, match="more than 100 replies"):
        read(path, "instructions", flat(deep))
