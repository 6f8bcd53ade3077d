"""`maquette import`: a Hugging Face folder becomes an artifact with the same weights, its source named."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.manifest import read_manifest, verify_files
from maquette.cli import import_
from maquette.cli.command_line.model_config import ImportStage
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.model.loading import find_checkpoint, load_checkpoint
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

TOKENS = torch.arange(20, 30)[None]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama as others publish it: bfloat16."""
    config = TransformerConfig(
        272, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32
    )
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    return hf.save(LanguageModel(config).to(torch.bfloat16), tokenizer, tmp_path_factory.mktemp("import") / "TinyLlama")


def test_import(source: Path, tmp_path: Path) -> None:
    folder = import_.run(ImportStage(outputs=str(tmp_path), path=str(source)))
    assert folder == tmp_path / "artifacts" / "models" / "TinyLlama" == find_checkpoint("TinyLlama", tmp_path)
    facts = verify_files(folder).facts
    assert (facts["architecture"], facts["max_position_embeddings"]) == ("LlamaForCausalLM", 32)
    assert "trained elsewhere" in (folder / "README.md").read_text()
    model, _ = load_checkpoint(folder)
    with torch.no_grad():
        assert torch.equal(model(TOKENS), hf.load(source)(TOKENS))
    weights = hf.load(folder, dtype=None).state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in hf.load(source, dtype=None).state_dict().items())


def test_again_is_nothing_to_do(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ImportStage(outputs=str(tmp_path), path=str(source), name="mine")
    created = read_manifest(import_.run(config)).created
    capsys.readouterr()
    assert read_manifest(import_.run(config)).created == created
    assert "up to date" in capsys.readouterr().err


def test_a_name_holds_one_model(source: Path, tmp_path: Path) -> None:
    other = hf.save(
        LanguageModel(TransformerConfig(272, 8, 1, 1)),
        train_tokenizer([], TokenizerConfig(kind="byte")),
        tmp_path / "x",
    )
    settings: dict[str, Any] = {"outputs": str(tmp_path), "name": "mine"}
    import_.run(ImportStage(path=str(source), **settings))
    with pytest.raises(ConfigError, match="made from other settings"):
        import_.run(ImportStage(path=str(other), **settings))
    folder = import_.run(ImportStage(path=str(other), force=True, **settings))
    assert hf.load(folder).config.hidden_size == 8


def test_mistakes(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder to import"):
        import_.run(ImportStage(outputs=str(tmp_path)))
    with pytest.raises(StageError, match="is not a folder"):
        import_.run(ImportStage(outputs=str(tmp_path), path=str(tmp_path / "nowhere")))
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((source / name).read_bytes())
    with pytest.raises(StageError, match=r"tokenizer.json is missing"):
        import_.run(ImportStage(outputs=str(tmp_path), path=str(tmp_path / "bare")))
    assert not (tmp_path / "artifacts" / "models" / "bare").exists()
