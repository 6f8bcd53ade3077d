"""`maquette score`: a table or JSON of sentences given as words or in a file."""

import json
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli import score
from maquette.cli.command_line.model_config import ScoreStage
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = LanguageModel(
        TransformerConfig(272, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64)
    )
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    return str(hf.save(model, tokenizer, tmp_path_factory.mktemp("score") / "model"))


def test_table(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    scores = score.run(ScoreStage(checkpoint=folder, sentences=["the mouse", "[bold]the cat[/bold]"]))
    printed = capsys.readouterr().out
    assert "[bold]the cat[/bold]" in printed
    for scored in scores:
        assert f"{scored.log_prob:.3f}" in printed
        assert f"{scored.per_token:.3f}" in printed
        assert f"{scored.bits_per_byte:.3f}" in printed


def test_json_and_file(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sentences.txt"
    file.write_bytes("Käse\r\n\n  mouse \n".encode())
    scores = score.run(ScoreStage(checkpoint=folder, sentences=["cat"], file=str(file), json=True))
    records = json.loads(capsys.readouterr().out)
    assert [record["sentence"] for record in records] == ["cat", "Käse", "  mouse "]
    assert [record["log_prob"] for record in records] == [scored.log_prob for scored in scores]
    assert records[1]["bytes"] == 5
    assert sum(records[1]["token_log_probs"]) == pytest.approx(records[1]["log_prob"])


def test_mistakes(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to score"):
        score.run(ScoreStage(checkpoint=folder))
    with pytest.raises(StageError, match=r"Can't read .*missing.txt"):
        score.run(ScoreStage(checkpoint=folder, file=str(tmp_path / "missing.txt")))
    (tmp_path / "latin.txt").write_bytes(b"K\xe4se")
    with pytest.raises(StageError, match="not UTF-8 text"):
        score.run(ScoreStage(checkpoint=folder, file=str(tmp_path / "latin.txt")))
