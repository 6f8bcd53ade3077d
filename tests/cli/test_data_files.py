"""Data files on the command line: any path is read as it is typed, and --show prints how the file is understood."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from maquette.artifacts import ConfigError
from maquette.cli.command_line import dispatcher as cli
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.overrides import parse_overrides
from maquette.cli.command_line.registry import STAGES

NAMES = ["bücher", "书", "my=books", "my books=old", "it's", "a [1]", "50%"]
ASKED, YES = {"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue, like the sea."}
CHAT = {"messages": [ASKED, YES | {"weight": 0}, ASKED, YES]}
PAIR = {"prompt": "Name a colour.", "chosen": [ASKED, YES], "rejected": [ASKED, YES | {"content": "No."}]}
BATTLE = {"model_a": "one", "model_b": "two", "winner": "model_b", "prompt": "hi", "answer_a": "yo", "answer_b": "hey"}


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_read_as_it_is_typed(name: str) -> None:
    settings: Any = compose(STAGES["corpus"], ["source=text", f"source.path={name}"])
    assert settings.source.path == name
    train: Any = compose(STAGES["train"], [f"instructions.path={name}", f"suite.files.exam={name}"])
    assert (train.instructions.path, train.suite.files) == (name, {"exam": name})


def test_a_line_that_cannot_be_read_is_answered_with_one_that_can() -> None:
    with pytest.raises(ConfigError, match="type 'seed=") as caught:
        parse_overrides(["seed=a(b"])
    assert "seed='\"'\"'a(b'\"'\"''" in str(caught.value)


def test_a_text_with_an_equals_sign_is_told_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("sample", "a=b") == 2
    printed = capsys.readouterr().err
    assert "unknown key 'a'" in printed and "put --" in printed


@pytest.mark.parametrize(
    ("stage", "arguments", "row", "expected"),
    [
        ("train", ["objective=sft", "instructions.path=FILE"], CHAT,
         "<user> Name a colour. <assistant, not learned> Blue, like the sea. <user>"),
        ("train", ["objective=dpo", "preferences.path=FILE"], PAIR,
         "<user> Name a colour. | chosen: <assistant> Blue, like the sea. | rejected: <assistant> No."),
        ("train", ["objective=kto", "preferences.path=FILE"],
         {"prompt": "Name a colour.", "completion": "No.", "label": False},
         "<user> Name a colour. | bad: <assistant> No."),
        ("train", ["objective=ppo", "prompts.path=FILE"], CHAT, "<user> Name a colour. <assistant> Blue"),
        ("evaluate", ["suite=files", "suite.files.exam=FILE"], {"context": "A", "options": [" b", " c"], "answer": 1},
         "A | A: b | B: c | right: B"),
        ("ratings", ["battles=FILE"], BATTLE, "two beats one | hi | hey | yo"),
    ],
)  # fmt: skip
def test_show_prints_three_examples(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    arguments: list[str],
    row: dict[str, Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my rows=new.jsonl"
    path.write_text("".join(json.dumps(row | {"id": number}) + "\n" for number in range(5)))
    arguments = [one.replace("FILE", str(path)) for one in arguments]
    assert call(stage, *arguments, "--show") == 0
    printed = capsys.readouterr().out
    assert printed.count("\n#   ") == 3 and f"#   {expected}" in printed
    assert yaml.safe_load(printed)["outputs"] == "outputs"
    path.write_text('{"unheard": 1}\n')
    assert call(stage, *arguments, "--show") == 1
    assert f"{path}, line 1" in capsys.readouterr().err
