"""Instructions and preferences from files: every format, every way a row can be wrong, and what is left out."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maquette.artifacts import StageError
from maquette.data.conversations import ExampleFiles, Instruction, Preference, ShuffledPrompts
from maquette.data.examples import Examples, describe_examples, encode_instructions, encode_preferences, split_of
from maquette.feedback.config import PromptsConfig
from maquette.feedback.prompts import open_prompts, say_left_out
from maquette.text import Tokenizer
from maquette.text.chat import Message
from maquette.text.chat_template import TemplateChat
from maquette.text.config import TokenizerConfig
from maquette.text.training import train_tokenizer

CHAT: list[Message] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_formats(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"messages": CHAT}, "")
    (tmp_path / "b.json").write_text(json.dumps([{"instruction": "add", "input": "1 1", "output": "2"}]))
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write(json.dumps({"instruction": "go", "input": "", "output": "gone"}) + "\n")
    result = [one.messages for one in ExampleFiles(tmp_path, "instructions").examples()]
    assert result == [
        CHAT,
        [{"role": "user", "content": "add\n\n1 1"}, {"role": "assistant", "content": "2"}],
        [{"role": "user", "content": "go"}, {"role": "assistant", "content": "gone"}],
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object but list"),
        ({"text": "x"}, "line 2 is not a conversation: it has 'text'"),
        ({"messages": "hi"}, "line 2: messages must be a list"),
        ({"messages": []}, "line 2: The conversation has no messages"),
        ({"messages": CHAT[:1]}, "line 2 has no answer"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "line 2: Message 1 of 1 has the role 'robot'"),
        ({"messages": [{"role": "user"}]}, "line 2: Message 1 of 1 has no text"),
        ({"instruction": 3, "output": "x"}, "line 2: instruction must be a text, got 3"),
    ],
)
def test_a_wrong_instruction_is_named(tmp_path: Path, row: Any, reason: str) -> None:
    path = write(tmp_path / "x.jsonl", {"messages": CHAT}, row)
    with pytest.raises(StageError) as caught:
        list(ExampleFiles(path, "instructions").examples())
    assert f"{path}, {reason}" in str(caught.value)


PAIR = {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": [{"role": "assistant", "content": "no"}]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": None}, "line 1, chosen: messages must be a list"),
        ({"rejected": CHAT[:1]}, "line 1: rejected does not end with a completion"),
        ({"margin": "much"}, "line 1: margin must be a number, got 'much'"),
        ({"margin": float("nan")}, "line 1: margin must be a number, got nan"),
        ({"probability": 1.5}, "line 1: probability is 1.5"),
        ({"annotator": 3}, "line 1: annotator must be a text, got 3"),
    ],
)
def test_a_wrong_preference_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = write(tmp_path / "x.jsonl", PAIR | change)
    with pytest.raises(StageError) as caught:
        list(ExampleFiles(path, "preferences").examples())
    assert f"{path}, {reason}" in str(caught.value)
    del change
    with pytest.raises(StageError, match="rejected missing"):
        list(ExampleFiles(write(path, {key: PAIR[key] for key in ("prompt", "chosen")}), "preferences").examples())


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"none\.jsonl does not exist.*\n.* file of preferences \(\.jsonl, .*\.csv"):
        ExampleFiles(tmp_path / "none.jsonl", "preferences")
    with pytest.raises(StageError, match="does not exist"):
        ExampleFiles(tmp_path / "none.jsonl", "instructions")
    with pytest.raises(StageError, match="no preferences files"):
        ExampleFiles(tmp_path, "preferences")


def test_a_file_without_rows_is_called_so(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(StageError, match="There are no instructions: no file has a row"):
        encode(tokenizer, tmp_path)


def encode(tokenizer: Tokenizer, folder: Path, *conversations: list[Message], **settings: Any) -> Any:
    settings = {"longest": 64, "validation": 0.0} | settings
    facts = encode_instructions(map(Instruction, conversations), tokenizer, folder, **settings)
    return facts, Examples.load(folder / "train"), Examples.load(folder / "validation")


def spelt_out(turns: list[Message]) -> str:
    return "<|document|>" + "".join(f"<|{turn['role']}|>{turn['content']}<|end_of_turn|>" for turn in turns)


def test_one_begin_one_end_and_only_answers_count(tokenizer: Tokenizer, tmp_path: Path) -> None:
    turns: list[Message] = [{"role": "system", "content": "be kind <|document|>"}, *CHAT, *CHAT]
    _, train, _ = encode(tokenizer, tmp_path, turns, longest=200)
    ids, mask = train[0]
    assert (ids == tokenizer.document_id).sum() == 1 and ids[0] == tokenizer.document_id
    assert (ids == tokenizer.end_of_turn_id).sum() == len(turns) and ids[-1] == tokenizer.end_of_turn_id
    assert tokenizer.decode(ids.tolist()) == spelt_out(turns)
    assert tokenizer.decode(ids[mask].tolist()) == 2 * "hello<|end_of_turn|>"


def test_too_long_is_counted_and_never_cut(tokenizer: Tokenizer, tmp_path: Path) -> None:
    long: list[Message] = [CHAT[0], {"role": "assistant", "content": "x" * 100}]
    facts, train, _ = encode(tokenizer, tmp_path, CHAT, long, CHAT)
    assert (len(train), facts["too_long"], facts["read"], facts["longest_seen"]) == (2, 1, 3, 107)
    assert "1 of 3 left out: longer than 64 tokens (the longest: 107)" in "\n".join(describe_examples(facts, "x"))
    with pytest.raises(StageError, match="1 read, 1 longer than 64"):
        encode(tokenizer, tmp_path, long)


def requests(count: int) -> list[list[Message]]:
    return [[{"role": "user", "content": f"ask {number}"}, CHAT[1]] for number in range(count)]


def test_prompts_stay_on_their_side(tokenizer: Tokenizer, tmp_path: Path) -> None:
    many = requests(200)
    facts, _, held_out = encode(tokenizer, tmp_path / "a", *many, validation=0.25)
    assert 25 < facts["validation"]["examples"] < 75
    _, few, same = encode(tokenizer, tmp_path / "b", *many, validation=0.25, limit=10)
    assert len(few) == 10 and np.array_equal(same.tokens, held_out.tokens)
    assert {split_of(one[:1], 0.25) for one in many[:1] * 3} == {split_of(many[0][:1], 0.25)}
    assert split_of(CHAT[:1], 0.0) == "train"


def test_preferences_as_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    no: list[Message] = [{"role": "assistant", "content": ""}]
    long: list[Message] = [{"role": "assistant", "content": "x" * 100}]
    pairs = [
        Preference([*CHAT, *CHAT[:1]], CHAT[1:], no, "ann", margin=0.5),
        Preference(CHAT[:1], CHAT[1:], CHAT[1:], "ann"),
        Preference(CHAT[:1], CHAT[1:], long, "bob"),
        Preference(CHAT[:1], CHAT[1:], no, "bob", probability=0.75),
    ]
    facts = encode_preferences(pairs, tokenizer, tmp_path, longest=64, validation=0.0)
    assert (facts["read"], facts["identical"], facts["too_long"]) == (4, 1, 1)
    assert facts["annotators"] == ["ann", "bob"]
    train = Examples.load(tmp_path / "train")
    decoded = [tokenizer.decode(ids[mask].tolist()) for ids, mask in train]
    assert decoded == 2 * ["hello<|end_of_turn|>", "<|end_of_turn|>"]  # not what the assistant says in the prompt
    assert train.columns["annotator"].tolist() == [0, 0, 1, 1]
    assert train.columns["margin"][0] == 0.5 and np.isnan(train.columns["margin"][2])
    assert train.columns["probability"][2] == 0.75
    first = train[0][0][: int(train.columns["prompt_length"][0])].tolist()
    assert tokenizer.decode(first[:-1]) == spelt_out([*CHAT, *CHAT[:1]])


def test_empty_completions_are_left_out_and_counted(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        {"instruction": "say nothing", "output": ""},
        {"messages": [*CHAT[:1], {"role": "assistant", "content": " "}, *CHAT]},
        {"instruction": "say something", "output": "x"},
    )
    settings: dict[str, Any] = {"longest": 64, "validation": 0.0}
    facts = encode_instructions(ExampleFiles(path, "instructions").examples(), tokenizer, tmp_path / "sft", **settings)
    assert (facts["read"], facts["empty"], facts["too_long"]) == (3, 1, 0)
    assert "1 of 3 left out: the completion to learn is empty" in "\n".join(describe_examples(facts, "x"))
    learned = [tokenizer.decode(ids[mask].tolist()) for ids, mask in Examples.load(tmp_path / "sft" / "train")]
    assert learned == ["hello<|end_of_turn|>", "x<|end_of_turn|>"]  # of the second row not the turn that is empty
    turns = "\n\nHuman: hi\n\nAssistant:"
    write(path, {"chosen": turns, "rejected": turns + " no"}, {"chosen": turns + " yes", "rejected": turns})
    facts = encode_preferences(ExampleFiles(path, "preferences").examples(), tokenizer, tmp_path / "dpo", **settings)
    assert (facts["read"], facts["empty"], facts["train"]["examples"]) == (2, 1, 2)


def test_a_row_that_the_template_refuses_is_named(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.jsonl", {"messages": CHAT}, {"messages": [{"role": "system", "content": "s"}, *CHAT]})
    template = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    template += "{{ m.role }}: {{ m.content }}<|end_of_turn|>{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    monkeypatch.setattr(tokenizer, "template_chat", TemplateChat(template, tokenizer, {}))
    with pytest.raises(StageError, match=f"{path}, line 2: .*No system role"):
        encode_instructions(
            ExampleFiles(path, "instructions").examples(), tokenizer, tmp_path, longest=64, validation=0.0
        )


def test_a_damaged_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    encode(tokenizer, tmp_path, CHAT)
    (tmp_path / "train" / "mask.npy").unlink()
    with pytest.raises(StageError, match="train is damaged"):
        Examples.load(tmp_path / "train")


def test_prompts_without_room_are_counted(
    tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "hi"}, {"prompt": "x" * 100}, {"prompt": "ho"})
    config = PromptsConfig(path=str(path))
    prompts = open_prompts(config, tokenizer, longest=20)
    say_left_out(prompts)
    assert "prompts: 1 of 3 left out: no room for a completion" in capsys.readouterr().err
    with monkeypatch.context() as patch:  # the held-out ones are the same file's, which is not read again
        patch.setattr("maquette.feedback.prompts.read_prompts", None)
        assert isinstance(open_prompts(config, tokenizer, longest=200, split="held_out"), ShuffledPrompts)
    write(path, {"prompt": "new"})
    assert open_prompts(config, tokenizer, longest=20)[0].messages[0]["content"] == "new"
