"""Rows of others: nothing that a row says is lost in silence, and no prompt is read twice."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from maquette.artifacts import StageError
from maquette.data.conversations import ExampleFiles, LabelledCompletion, Preference
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
        return [messages for messages, _ in ExampleFiles(path, kind).examples()]
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
    margin = row["score_chosen"] - row["score_rejected"] if "score_chosen" in row else None
    assert read(tmp_path / "x.jsonl", "preferences", row) == [Preference(prompt, [YES], [NO], margin=margin)]
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
        ({"prompt": "x", "completion": "y", "label": True}, "has the shape of KTO"),
        ({"messages": [ASKED, YES]}, "has the shape of OpenAI (messages), which is not read as a preference"),
        ({"colour": "blue", "votes": [1, 2]},
         "prompt and chosen and rejected missing; it has 'colour': 'blue', 'votes': a list of 2, first 1"),
        ({"instruction": "x", "output_1": "y", "output_2": "z", "preference": 0}, "preference must be 1 or 2, got 0"),
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
        ({"messages": [{"from": "human", "value": "x"}]}, "line 1 has no answer"),
        ({"conversations": [{"from": "function", "value": "x"}]}, "Message 1 of 1 has the role 'function'"),
        ({"messages": [ASKED | {"content": [{"type": "image_url", "image_url": {}}]}, YES]},
         "message 1: part 1 of its content is not text but 'image_url'"),
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
        ({"instruction": "a", "output": "b", "label": True}, "'label' is not a key of a row"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "line 1 has no answer"),
        ({"prompt": "x", "completion": "y", "label": True}, "has the shape of KTO"),
        ({"prompt": "x", "chosen": "y", "rejected": "z"}, "has the shape of UltraFeedback"),
        ({"message_tree_id": "1", "prompt": {"text": 3}}, "a message of the tree has no text"),
        ({"prompt": "x"}, "line 1 is not a conversation: it has 'prompt': 'x'"),
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


SHARE_GPT = {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Name a colour."},
                               {"from": "gpt", "value": "Blue, like the sea."}]}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (SHARE_GPT | {"id": "identity_0"}, [SYSTEM, ASKED, YES]),
        ({"conversations": SHARE_GPT["conversations"][1:], "system": "Be brief."}, [SYSTEM, ASKED, YES]),
        ({"messages": [SYSTEM | {"role": "developer"}, ASKED | {"content": [{"type": "text", "text": "Name a "},
          {"type": "text", "text": "colour."}]}, YES]}, [SYSTEM, ASKED, YES]),
        ({"instruction": "Name a colour.", "context": "", "response": YES["content"], "category": "open_qa"},
         [ASKED, YES]),
        ({"instruction": "Name a", "context": "colour.", "response": YES["content"]}, [user("Name a\n\ncolour."), YES]),
        ({"prompt": "Name a colour.", "completion": YES["content"]}, [ASKED, YES]),
        ({"prompt": [SYSTEM, ASKED], "completion": [YES]}, [SYSTEM, ASKED, YES]),
        ({"prompt": "Name a colour.", "response": YES["content"], "source": "x"}, [ASKED, YES]),
        ({"question": "Name a colour.", "answer": YES["content"]}, [ASKED, YES]),
        ({"query": "Name a colour.", "response": YES["content"]}, [ASKED, YES]),
        ({"instruction": "Go on:", "output": "Human: hi\n\nAssistant: ho"},
         [user("Go on:"), assistant("Human: hi\n\nAssistant: ho")]),
        ({"id": "7", "messages": [ASKED, YES], "source": "ai2-adapt-dev/flan_v2_converted"}, [ASKED, YES]),  # Tülu
        ({"prompt": "Name a colour.", "messages": [ASKED, YES], "chosen": [ASKED, YES], "rejected": [ASKED, NO],
          "score_chosen": 8.0, "score_rejected": 3.0}, [ASKED, YES]),  # UltraFeedback for SFT
    ],
)  # fmt: skip
def test_shapes_of_instructions(tmp_path: Path, row: dict[str, Any], messages: list[Message]) -> None:
    (one,) = read(tmp_path / "x.jsonl", "instructions", row)
    assert one.messages == messages
    assert read(tmp_path / "x.jsonl", "prompts", row) == [messages[:-1]]


SHP = {"post_id": "a", "domain": "askhr", "upvote_ratio": 0.9, "history": "Name a colour.", "c_root_id_A": "b",
       "c_root_id_B": "c", "created_at_utc_A": 1, "created_at_utc_B": 2, "score_A": 3, "score_B": 9,
       "human_ref_A": NO["content"], "human_ref_B": YES["content"], "labels": 0, "seconds_difference": 1.0,
       "score_ratio": 3.0}  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Name a colour.", "chosen": YES["content"], "rejected": NO["content"]},
        {"instruction": "Name a colour.", "input": "", "chosen": YES["content"], "rejected": NO["content"]},
        {"conversations": SHARE_GPT["conversations"][1:2], "chosen": {"from": "gpt", "value": YES["content"]},
         "rejected": {"from": "gpt", "value": NO["content"]}},
        {"instruction": "Name a colour.", "input": "", "output_1": NO["content"], "output_2": YES["content"],
         "preference": 2},
        {"qid": 7, "question": "Name a colour.", "date": "2020", "metadata": ["x"], "response_j": YES["content"],
         "response_k": NO["content"]},
        SHP,
        {"input": {"messages": [ASKED], "tools": []}, "preferred_output": [YES], "non_preferred_output": [NO]},
        {"id": "7", "source": "x", "prompt": "Name a colour.", "chosen": [ASKED, YES], "rejected": [ASKED, NO]},  # Tülu
    ],
)  # fmt: skip
def test_shapes_of_preferences(tmp_path: Path, row: dict[str, Any]) -> None:
    assert read(tmp_path / "x.jsonl", "preferences", row) == [Preference([ASKED], [YES], [NO])]
    assert read(tmp_path / "x.jsonl", "prompts", row) == [[ASKED]]


PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "own_data.md"


def shown_rows(kind: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Shape and rows of each line of the page's table of this kind."""
    heading = {"labels": "Good and bad completions, each by itself"}.get(kind, kind.capitalize())
    table = PAGE.read_text(encoding="utf-8").partition(f"**{heading}**")[2].partition("\n\n**")[0]
    cells = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")][1:]
    rows = ((name.strip(), [json.loads(row) for row in re.findall(r"`(\{.*?\})`", cell)]) for name, cell in cells)
    return [(name, given) for name, given in rows if given]


@pytest.mark.parametrize("kind", ["instructions", "preferences", "labels"])
def test_the_rows_that_the_page_shows_are_read(tmp_path: Path, kind: str) -> None:
    shapes = shown_rows(kind)
    assert len(shapes) == {"instructions": 11, "preferences": 10, "labels": 1}[kind]
    for name, rows in shapes:
        (one,) = read(tmp_path / "x.jsonl", kind, *rows)
        parts = {"instructions": "messages", "preferences": "chosen", "labels": "completion"}
        completion = getattr(one, parts[kind])[-1]
        assert completion["content"].rstrip(".") in ("Blue", "Plum"), name
        (prompt,) = read(tmp_path / "x.jsonl", "prompts", *rows)
        assert prompt[-1]["role"] == "user", name


def test_labelled_completions(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "Name a colour.", "completion": YES["content"], "label": True},
        {"prompt": [ASKED], "completion": [NO], "label": 0, "source": "x"},
    ]
    assert read(path, "labels", *rows) == [
        LabelledCompletion([ASKED], [YES], desirable=True),
        LabelledCompletion([ASKED], [NO], desirable=False),
    ]
    for change, reason in (({"label": 2}, "label must be true or false, got 2"), ({"label": None}, "label missing"),
                           ({"chosen": "x"}, "'chosen' is not a key")):  # fmt: skip
        with pytest.raises(StageError, match=reason):
            read(path, "labels", rows[0] | change)
    assert read(path, "prompts", *rows) == [[ASKED], [ASKED]]


def test_a_cell_of_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"

    def rows(text: str, kind: str) -> list[Any]:
        path.write_bytes(gzip.compress(text.encode()))
        return list(ExampleFiles(path, kind).examples())

    (alpaca,) = rows('instruction,input,output\r\n"Name a\ncolour.",,"Blue, ""now""."\r\n', "instructions")
    assert alpaca.messages == [user("Name a\ncolour."), assistant('Blue, "now".')]
    quoted = json.dumps([ASKED, YES]).replace('"', '""')
    assert rows(f'messages,id\n"{quoted}",7\n', "instructions")[0].messages == [ASKED, YES]
    (pair,) = rows("prompt,chosen,rejected,margin\nName a colour.,Blue.,No.,0.5\n", "preferences")
    assert (pair.chosen, pair.margin) == ([assistant("Blue.")], 0.5)
    (one,) = rows("prompt,completion,label\nName a colour.,No.,False\n", "labels")
    assert one.desirable is False
    with pytest.raises(StageError, match=r"row 1 has 4 cells, the first line 3"):
        rows("instruction,input,output\na,b,c,d\n", "instructions")


def test_parquet_rows_are_read_as_lines_are(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    table = pa.Table.from_pylist([{"messages": [ASKED, YES], "source": "x"}, {"messages": [ASKED, NO], "source": None}])
    parquet.write_table(table, path)
    assert [one.messages for one in ExampleFiles(tmp_path, "instructions").examples()] == [[ASKED, YES], [ASKED, NO]]
    assert [one.place for one in ExampleFiles(path, "instructions").examples()] == [f"{path}, row 1", f"{path}, row 2"]


def test_columns_that_nothing_reads_are_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [TWO | {"source": "x"}, TWO | {"source": "y", "row_id": 3}]
    read(tmp_path / "x.jsonl", "instructions", *rows)
    assert capsys.readouterr().err.count("columns not read: row_id, source") == 1
