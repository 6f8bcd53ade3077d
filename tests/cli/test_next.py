"""`maquette next`: bars in a terminal, lines into a pipe, JSON; two models side by side; what can't be looked at."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from maquette.artifacts import ConfigError
from maquette.cli import next as stage
from maquette.cli.command_line.dispatcher import main
from maquette.cli.command_line.model_config import NextStage
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.model.next_token_view import show
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    shape = TransformerConfig(272, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                              max_position_embeddings=64)  # fmt: skip
    root = tmp_path_factory.mktemp("next")
    return [str(hf.save(LanguageModel(shape, seed=seed), tokenizer, root / f"model{seed}")) for seed in (0, 1)]


def test_lines_into_a_pipe(folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["next", "she likely\tprefers", "a = b", f"checkpoint={folders[0]}", "top_k=3", "count=4"])
    assert not ended.value.code
    head, *lines = capsys.readouterr().out.splitlines()
    rows = [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert len(rows) == 8 and {row["text"] for row in rows} == {"she·likely⇥prefers", "a·=·b"}
    assert sum(float(row["drawn"]) for row in rows[:3]) == pytest.approx(1, abs=1e-4) and rows[3]["drawn"] == "0"


def test_json_two_models_and_an_earlier_place(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    views = stage.run(NextStage(models=folders, texts=["mouse"], json=True, back=2, beams=2, max_tokens=3))
    records = json.loads(capsys.readouterr().out)
    assert [record["model"] for record in records] == ["model0", "model1"]
    for record, view in zip(records, views, strict=True):
        assert record["position"] == len(record["tokens"]) - 2 and record["tokens"][0]["surprise"] is None
        assert len(record["candidates"]) == 10 and record["candidates"][0]["probability"] == pytest.approx(
            view.prediction.candidates[0].probability
        )
        assert len(record["beams"]) == 2 and len(record["beams"][0]["tokens"]) == 3


@pytest.mark.parametrize("width", [60, 80, 160])
def test_what_a_terminal_shows(folders: list[str], width: int) -> None:
    views = stage.run(NextStage(models=folders, texts=["mouse\x1b[31m"], beams=3, temperature=0.5))
    console = Console(width=width, record=True, file=io.StringIO())
    show(views, console)
    lines = console.export_text().splitlines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width and "\x1b" not in text
    assert ("model0" in lines[0]) and ("model1" in lines[0]) == (width >= 77)
    for part in ("entropy", "█", "others", "temperature=0.5", "top_p=0.95", "together", "3 beams", "mouse␛["):
        assert part in text, part


def test_mistakes(folders: list[str]) -> None:
    with pytest.raises(ConfigError, match="back=9"):
        stage.run(NextStage(checkpoint=folders[0], texts=["mouse"], back=9))
    with pytest.raises(ConfigError, match="reads from 1 to 64"):
        stage.run(NextStage(checkpoint=folders[0], texts=["mouse" * 20]))
    with pytest.raises(ConfigError, match="twice"):
        stage.run(NextStage(models=[folders[0], folders[0]], texts=["mouse"]))
    with pytest.raises(ConfigError, match="both given"):
        NextStage(models=folders, checkpoint=folders[0]).validate()
