"""`maquette export`: the newest run as a folder that stands on its own; nothing of anybody's is overwritten."""

from pathlib import Path

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.run_file import write_run
from maquette.cli import export
from maquette.cli.command_line.model_config import ExportStage
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

TOKENS = torch.arange(20, 30)[None]


def add_run(outputs: Path, name: str, *, seed: int = 0, status: str = "finished") -> LanguageModel:
    config = TransformerConfig(
        272, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=16, token_shift=True
    )
    model = LanguageModel(config, seed=seed).eval()
    folder = outputs / "runs" / name
    hf.save(model, train_tokenizer([], TokenizerConfig(kind="byte")), folder / "model", card=f"# {name}")
    write_run(folder, {"spec": {"objective": "pretrain"}, "status": status, "finished": "2026"})
    return model


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = add_run(tmp_path, "a")
    folder = export.run(ExportStage(outputs=str(tmp_path)))
    assert folder == tmp_path / "export" / "a"
    assert (folder / "README.md").read_text().startswith("# a\n")
    with torch.no_grad():
        assert torch.equal(hf.load(folder)(TOKENS), model(TOKENS))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert export.run(ExportStage(outputs=str(tmp_path))) == folder
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "up to date" in capsys.readouterr().err


def test_another_model_is_replaced_only_by_force(tmp_path: Path) -> None:
    add_run(tmp_path, "a")
    other = add_run(tmp_path, "b", seed=1)
    target = str(tmp_path / "out")
    export.run(ExportStage(outputs=str(tmp_path), checkpoint="a", to=target))
    with pytest.raises(ConfigError, match="holds another model"):
        export.run(ExportStage(outputs=str(tmp_path), checkpoint="b", to=target))
    export.run(ExportStage(outputs=str(tmp_path), checkpoint="b", to=target, force=True))
    with torch.no_grad():
        assert torch.equal(hf.load(target)(TOKENS), other(TOKENS))


@pytest.mark.parametrize("force", [False, True])
def test_other_files_are_never_lost(force: bool, tmp_path: Path) -> None:
    add_run(tmp_path, "a")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(StageError, match=r"holds other files \(thesis.tex\)"):
        export.run(ExportStage(outputs=str(tmp_path), to=str(mine), force=force))
    assert (mine / "thesis.tex").read_text() == "years of work"
    with pytest.raises(StageError, match="is a file"):
        export.run(ExportStage(outputs=str(tmp_path), to=str(mine / "thesis.tex"), force=force))


def test_damaged_model_is_not_exported(tmp_path: Path) -> None:
    add_run(tmp_path, "a")
    weights = tmp_path / "runs" / "a" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(StageError, match=r"model.safetensors is damaged"):
        export.run(ExportStage(outputs=str(tmp_path)))
    assert not (tmp_path / "export" / "a").exists()


def test_unfinished_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(tmp_path, "a", status="interrupted")
    export.run(ExportStage(outputs=str(tmp_path), checkpoint="a"))
    assert "interrupted" in capsys.readouterr().err
