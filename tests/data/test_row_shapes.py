"""Rows of others: nothing that a row says is lost in silence, and no prompt is read twice."""

import json
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import StageError
from maquette.data.conversations import ExampleFiles, Preference, prompt_rows
from maquette.text.chat import Message


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


ASKED, YES, NO = user("Name a colour."), assistant("Blue, like the sea."), assistant("No.")
SYSTEM: Message = {"role": "system", "content": "Be brief."}
TWO = {"messages": [ASKED, YES]}


def read(path: Path, kind: str, *rows: Any) -> list[Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if kind == "prompts":
        return [messages for messages, _ in prompt_rows(path)]
    return list(ExampleFiles(path, kind).examples())


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Name a colour.", "chosen": [ASKED, YES], "rejected": [ASKED, NO]}, [ASKED]),  # UltraFeedback
        ({"prompt": [ASKED], "chosen": [ASKED, YES], "rejected": [ASKED, NO]}, [ASKED]),
        ({"chosen": [ASKED, YES], "rejected": [ASKED, NO]}, [ASKED]),  # the prompt is the common beginning
        ({"prompt": "Name a colour.", "chosen": [SYSTEM, ASKED, YES], "rejected": [SYSTEM, ASKED, NO]},
         [SYSTEM, ASKED]),
        ({"chosen": [ASKED, NO, ASKED, YES], "rejected": [ASKED, NO, ASKED, NO]}, [ASKED, NO, ASKED]),
        (
            {
                "chosen": "\n\nHuman: Name a colour.\n\nAssistant: Blue, like the sea.",
                "rejected": "\n\nHuman: Name a colour.\n\nAssistant: No.",
            },
            [ASKED],
        ),  # HH-RLHF
        ({"prompt": "\n\nHuman: Name a colour.\n\nAssistant:", "chosen": YES["content"], "rejected": "No."}, [ASKED]),
        ({"system": "Be brief.", "prompt": "Name a colour.", "chosen": [YES], "rejected": [NO]}, [SYSTEM, ASKED]),
        ({"prompt": "Name a colour.", "chosen": [ASKED, YES], "rejected": [ASKED, NO], "messages": [ASKED, YES],
          "prompt_id": "7", "score_chosen": 8.0, "score_rejected": 3.0, "source": "x", "url": "y"}, [ASKED]),
    ],
)  # fmt: skip
def test_a_prompt_is_read_once(tmp_path: Path, row: dict[str, Any], prompt: list[Message]) -> None:
    assert read(tmp_path / "x.jsonl", "preferences", row) == [Preference(prompt, [YES], [NO])]
    assert read(tmp_path / "x.jsonl", "prompts", row) == [prompt]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Other?", "chosen": [ASKED, YES], "rejected": [ASKED, NO]}, "do not begin with prompt"),
        ({"prompt": [ASKED], "chosen": [ASKED, YES], "rejected": [NO]}, "only one of chosen and rejected"),
        ({"chosen": [ASKED, YES], "rejected": [user("Else?"), NO]}, "they differ at message 1, the user's"),
        ({"chosen": "Blue.", "rejected": "No."}, "not a preference: prompt missing"),
        ({"prompt": "Name a colour.", "chosen": "Name a colour. Blue.", "rejected": "Name a colour.\nNo."},
         "chosen and rejected repeat the prompt"),
        ({"prompt": [ASKED, YES], "chosen": [YES], "rejected": [NO]}, "a second turn of the assistant in a row"),
        ({"prompt": [ASKED, ASKED], "chosen": [YES], "rejected": [NO]}, "a second turn of the user in a row"),
        ({"prompt": [ASKED], "chosen": [YES | {"weight": 0}], "rejected": [NO]}, "chosen, message 1: weight is 0"),
        ({"prompt": [ASKED], "chosen": [YES], "rejected": [NO], "tie": True}, "'tie' is not a key of a row"),
        ({"prompt": [ASKED], "chosen": [YES], "rejected": [NO], "messages": [ASKED, NO]}, "'messages' is not a key"),
        ({"prompt": "x", "completion": "y"}, "has the shape of TRL (prompt and completion), which is not read"),
        ({"question": "x", "chosen": "y", "rejected": "z"}, "has the shape of Orca's preferences"),
    ],
)  # fmt: skip
def test_a_pair_that_is_none_is_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(StageError) as caught:
        read(tmp_path / "x.jsonl", "preferences", row)
    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}, line 1") and reason in str(caught.value)


def test_system_and_history_are_used(tmp_path: Path) -> None:
    alpaca: dict[str, Any] = {"instruction": "And a", "input": "fruit?", "output": "Plum.", "system": "Be brief."}
    alpaca["history"] = [["Name a colour.", "No."]]
    before = [SYSTEM, ASKED, NO, user("And a\n\nfruit?")]
    rows = [alpaca, TWO | {"system": "Be brief."}, {"messages": [SYSTEM, ASKED, YES], "system": "Be brief."}]
    first, *others = read(tmp_path / "x.jsonl", "instructions", *rows)
    assert first.messages == [*before, assistant("Plum.")]
    assert [one.messages for one in others] == 2 * [[SYSTEM, ASKED, YES]]
    assert read(tmp_path / "x.jsonl", "prompts", *rows) == [before, [SYSTEM, ASKED], [SYSTEM, ASKED]]


def test_weights_say_what_is_learned(tmp_path: Path) -> None:
    draft, right = assistant("Draft."), assistant("Right.")
    for off in ({"weight": 0}, {"train": False}):
        row = {"messages": [ASKED, draft | off, ASKED, right | {"weight": 1}]}
        (one,) = read(tmp_path / "x.jsonl", "instructions", row)
        assert [message.get("weight", 1) for message in one.messages] == [1, 0, 1, 1]
        assert read(tmp_path / "x.jsonl", "prompts", row) == [[ASKED, draft, ASKED]]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [ASKED, YES | {"weight": 0}]}, "line 1 has no answer to learn"),
        ({"messages": [ASKED, YES | {"weight": 0.5}]}, "message 2: weight must be 0 or 1, got 0.5"),
        ({"messages": [ASKED | {"train": True}, YES]}, "message 1: train is True"),
        *(
            ({"messages": [ASKED, YES | {key: value}]}, f"message 2: '{key}' is not a key of a message")
            for key, value in (
                ("tool_calls", [{"id": 1}]), ("name", "ann"), ("reasoning_content", "hm"), ("label", False),
                ("thinking", "hm"), ("function_call", {"name": "f"}),
            )
        ),
        ({"messages": [{"from": "human", "value": "x"}]}, "message 1: 'from' is not a key of a message"),
        *(
            (TWO | {key: value}, f"line 1: '{key}' is not a key of a row")
            for key, value in (
                ("tools", [{"name": "f"}]), ("weight", 0), ("history", [["a", "b"]]), ("conversation_a", [ASKED]),
                ("label", False), ("split", "test"), ("prompt", "Another?"),
            )
        ),
        (TWO | {"mesages": [1]}, "Did you mean 'messages'?"),
        ({"messages": [SYSTEM, ASKED, YES], "system": "Be long."}, "system is not the system message"),
        ({"messages": [ASKED, ASKED, YES]}, "a second turn of the user in a row"),
        ({"instruction": "a", "output": "b", "history": ["a", "b"]}, "history must be pairs of texts"),
        ({"instruction": "a", "output": "b", "think": "c"}, "'think' is not a key of a row"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "has the shape of ShareGPT (turns with from and value)"),
        ({"prompt": "x", "completion": "y"}, "has the shape of TRL"),
        ({"message_tree_id": "1", "prompt": {"text": "x"}}, "has the shape of OpenAssistant (trees of messages)"),
        ({"message_id": "1", "parent_id": None, "text": "x"}, "has the shape of OpenAssistant (a message a row)"),
        ({"instruction": "x", "context": "", "response": "y"}, "has the shape of Dolly"),
    ],
)  # fmt: skip
def test_what_no_instruction_can_use_is_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(StageError) as caught:
        read(tmp_path / "x.jsonl", "instructions", row)
    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}, line 1") and reason in str(caught.value)


def test_bookkeeping_and_empty_keys_pass(tmp_path: Path) -> None:
    row: dict[str, Any] = TWO | {
        "prompt_id": "7",
        "source": "web",
        "score": 3,
        "tools": None,
        "label": "",
        "prompt": "Name a colour.",
    }
    row["messages"] = [ASKED, YES | {"tool_calls": None, "id": "m"}]
    filled = "Below is an instruction.\n### Response: b"
    rows = [row, {"instruction": "a", "input": "", "output": "b", "text": filled}]
    assert [one.messages[-1]["content"] for one in read(tmp_path / "x.jsonl", "instructions", *rows)] == [
        YES["content"], "b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.json", f"{json.dumps(TWO)}\n\n{json.dumps(TWO)}\n"),
        ("list.jsonl", json.dumps([TWO, TWO])),
        ("list.jsonl", "\ufeff" + json.dumps([TWO, TWO], indent=2)),
        ("list.json", "\ufeff" + json.dumps([TWO, TWO])),
        ("lines.jsonl", f"\ufeff{json.dumps(TWO)}\r\n{json.dumps(TWO)}"),
    ],
)
def test_lists_and_lines_under_either_ending(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    conversations = [one.messages for one in ExampleFiles(tmp_path / name, "instructions").examples()]
    assert conversations == 2 * [TWO["messages"]]


def test_a_json_file_that_is_neither_a_list_nor_lines(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"data": [TWO]}, indent=1))
    with pytest.raises(StageError, match=r"x\.json must hold a list of rows, or a row a line"):
        list(ExampleFiles(tmp_path / "x.json", "instructions").examples())
