"""From a name to a model: runs, imported models, plain folders, the newest run; what is said where there is none."""

import json
from pathlib import Path

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.run_file import write_run
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.model.loading import (
    find_checkpoint,
    find_models,
    latest_run,
    load_checkpoint,
    load_tokenizer,
    model_folder,
    model_name,
    model_names,
)
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


def build(**changes: int) -> LanguageModel:
    sizes = {
        "vocab_size": 272,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 16,
    } | changes
    return LanguageModel(TransformerConfig(**sizes))


def add_run(outputs: Path, name: str, status: str, finished: str | None, tokenizer: Tokenizer | None) -> Path:
    folder = outputs / "runs" / name
    folder.mkdir(parents=True)
    write_run(folder, {"spec": {"objective": "pretrain"}, "status": status, "finished": finished})
    if tokenizer is not None:
        hf.save(build(), tokenizer, folder / "model")
    return folder


def test_latest_is_the_run_that_finished_last(tmp_path: Path, tokenizer: Tokenizer) -> None:
    add_run(tmp_path, "c", "finished", "2026-01-01T10:00:00+00:00", tokenizer)
    newest = add_run(tmp_path, "a", "finished", "2026-01-02T09:00:00+00:00", tokenizer)
    add_run(tmp_path, "b", "running", None, tokenizer)
    add_run(tmp_path, "d", "failed", "2026-01-03T09:00:00+00:00", None)
    assert latest_run(tmp_path) == newest
    assert find_checkpoint(None, tmp_path) == find_checkpoint("latest", tmp_path) == newest


def test_no_runs(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="There is no run") as error:
        latest_run(tmp_path)
    assert "maquette train" in error.value.hint
    add_run(tmp_path, "a", "interrupted", None, None)
    with pytest.raises(StageError, match="no finished run"):
        latest_run(tmp_path)
    with pytest.raises(StageError, match=r"has no model yet \(status: interrupted\)"):
        load_checkpoint(tmp_path / "runs" / "a")


def test_names(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    run = add_run(tmp_path, "300k-6m-12345678", "finished", "2026", tokenizer)
    imported = hf.save(build(), tokenizer, tmp_path / "artifacts" / "models" / "gpt2")
    assert find_checkpoint("300k-6m-12345678", tmp_path) == run
    assert find_checkpoint("gpt2", tmp_path) == imported
    assert find_checkpoint(str(imported), "elsewhere") == imported
    with pytest.raises(ConfigError, match="no such folder or run") as error:
        find_checkpoint("300k-6m-12345687", tmp_path)
    assert error.value.hint == "Did you mean 300k-6m-12345678?"
    with pytest.raises(ConfigError, match=r"^models=gpt: there is no such folder or run"):
        find_models(["gpt2", "gpt"], None, tmp_path)
    with pytest.raises(ConfigError, match=r"names .*gpt2 twice"):
        find_models(["gpt2", str(imported)], None, tmp_path)
    with pytest.raises(ConfigError, match="twice"):
        find_models(["300k-6m-12345678", str(run / "model")], None, tmp_path)


def test_a_model_is_called_the_same_wherever_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "mine" / "runs" / "300k-6m-12345678"
    (run / "model").mkdir(parents=True)
    monkeypatch.chdir(run)
    assert model_name(".") == model_name(run) == model_name(run / "model") == run.name
    theirs = tmp_path / "theirs" / "runs" / run.name / "model"
    assert model_names([run / "model", theirs]) == [f"mine/runs/{run.name}", f"theirs/runs/{run.name}"]
    assert model_names([run, tmp_path / "gpt2"]) == [run.name, "gpt2"]


def test_run_and_exported_folder_give_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    run = add_run(tmp_path, "a", "finished", "2026", tokenizer)
    tokens = torch.arange(20, 30)[None]
    one, its_tokenizer = load_checkpoint(run)
    other, _ = load_checkpoint(run / "model", tokenizer_digest=tokenizer.digest)
    assert its_tokenizer.digest == tokenizer.digest
    assert not one.training
    with torch.no_grad():
        assert torch.equal(one(tokens), other(tokens))


def test_foreign_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = hf.save(build(vocab_size=280), tokenizer, tmp_path / "model")
    with pytest.raises(StageError, match="another tokenizer"):
        load_checkpoint(folder, tokenizer_digest="0" * 64)
    tokenizer.add_tokens(["cheese"]).save(folder)
    with pytest.raises(StageError, match=r"tokenizer.json is not the tokenizer that the model was trained with"):
        load_tokenizer(folder)


def test_tokenizer_larger_than_the_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = hf.save(build(), tokenizer, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["tokenizer_digest"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "checksums.json").unlink()
    tokenizer.add_tokens(["cheese"]).save(folder)
    with pytest.raises(StageError, match="273 tokens, the model knows 272"):
        load_checkpoint(folder)


def test_neither_run_nor_model(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="neither a run nor"):
        model_folder(tmp_path)
    with pytest.raises(StageError, match="is not a folder"):
        model_folder(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(StageError, match=r"run.json is damaged"):
        model_folder(tmp_path)
