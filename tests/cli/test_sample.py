"""`maquette sample`: what is printed, in which order, from which model."""

import shutil
from pathlib import Path

import pytest
import torch

from maquette.artifacts import StageError
from maquette.artifacts.run_file import write_run
from maquette.cli import sample
from maquette.cli.command_line.model_config import SampleStage
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.model.generation import GeneratedToken, generate
from maquette.model.loading import load_checkpoint
from maquette.text import train_tokenizer
from maquette.text.chat import request
from maquette.text.config import TokenizerConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = LanguageModel(
        TransformerConfig(272, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64)
    )
    with torch.no_grad():
        model.head_weight.mul_(30)
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    return hf.save(model, tokenizer, tmp_path_factory.mktemp("sample") / "model")


def test_prints_prompts_and_continuations(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SampleStage(checkpoint=str(folder), prompts=["abc", "x"], count=2, max_tokens=12, seed=4)
    texts = sample.run(config)
    assert [text[:1] for text in texts] == ["a", "a", "x", "x"]
    assert texts[0] != texts[1]
    assert capsys.readouterr().out == "\n\n".join(texts) + "\n"
    assert sample.run(config) == texts
    config.seed = 5
    assert sample.run(config) != texts


def test_greedy_and_stop(folder: Path) -> None:
    config = SampleStage(checkpoint=str(folder), prompts=["abc"], temperature=0.0, max_tokens=20)
    text = sample.run(config)[0]
    assert sample.run(config) == [text]
    config.stop = [text[8:10]]
    assert sample.run(config) == ["abc" + text[3:].partition(text[8:10])[0]]


def test_without_a_prompt_a_document_begins(folder: Path) -> None:
    assert len(sample.run(SampleStage(checkpoint=str(folder), max_tokens=5))) == 1


def test_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="There is no run"):
        sample.run(SampleStage(outputs=str(tmp_path)))


def test_control_characters_do_not_reach_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = GeneratedToken(0, 0, 0.0, "a\x1b[2J\n\tb", "max_tokens")
    assert sample.print_in_order([""], [piece]) == [piece.text]
    assert capsys.readouterr().out == piece.text + "\n", "a file gets exactly what was written"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    sample.print_in_order([""], [piece])
    assert capsys.readouterr().out == "a␛[2J\n\tb\n"


def test_rows_are_printed_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    """Row 0 as it comes; row 1, which ends first, when row 0 has ended; row 2 goes on live after that."""
    shown = []

    def pieces() -> object:
        for row, text, reason in (
            (0, "a", None), (1, "b", "stop_id"), (2, "c", None), (0, "A", None), (2, "C", None), (0, "!", "stop_id"),
            (2, "?", "max_tokens"),
        ):  # fmt: skip
            yield GeneratedToken(row, 0, 0.0, text, reason)
            shown.append(capsys.readouterr().out)

    assert sample.print_in_order(["0:", "1:", "2:"], pieces()) == ["0:aA!", "1:b", "2:cC?"]  # type: ignore[arg-type]
    assert shown == ["0:a", "", "", "A", "", "!\n\n1:b\n\n2:cC", "?\n"]


def test_a_model_that_was_trained_to_answer_is_asked(folder: Path, tmp_path: Path) -> None:
    """Through the chat template, where the run says so or a person does."""
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    write_run(run, {"spec": {"objective": "sft"}, "status": "finished"})
    settings = {"prompts": ["abc"], "temperature": 0.0, "max_tokens": 5}
    asked = sample.run(SampleStage(checkpoint=str(run), **settings))  # type: ignore[arg-type]
    assert asked[0].startswith("abc\n")
    assert sample.run(SampleStage(checkpoint=str(folder), chat=True, **settings)) == asked  # type: ignore[arg-type]
    plain = sample.run(SampleStage(checkpoint=str(run), chat=False, **settings))  # type: ignore[arg-type]
    assert not plain[0].startswith("abc\n") or plain != asked
    model, tokenizer = load_checkpoint(folder)
    ids = request(tokenizer, "abc")
    assert ids[0] == tokenizer.document_id and tokenizer.decode(ids).endswith("abc<|end_of_turn|><|assistant|>")
    expected = generate(model, [ids], tokenizer=tokenizer, max_tokens=5)[0].text
    assert asked[0] == f"abc\n{expected}"
