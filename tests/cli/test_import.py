"""`maquette import`: a Hugging Face folder becomes an artifact with the same weights, its source named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.manifest import read_manifest, verify_files
from maquette.cli import import_
from maquette.cli.command_line.model_config import ImportStage
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.model.loading import find_checkpoint, load_checkpoint
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.chat import render
from maquette.text.config import TokenizerConfig
from support.gguf_files import byte_level

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


def test_chat_tokens_get_rows_and_go_out_again(source: Path, tmp_path: Path) -> None:
    """A base model without a chat template gets one, and rows near the mean of the others for what it lacks."""
    byte_level(["the mouse ate the cheese"], "gpt-2", 272).save(str(tmp_path / "tokenizer.json"))
    size = Tokenizer.load(tmp_path).vocab_size
    config = TransformerConfig(size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    base = LanguageModel(config, seed=2)
    hf.save(base, Tokenizer.load(tmp_path), tmp_path / "base")
    document = (tmp_path / "base" / "tokenizer.json").read_text()
    assert "<|im_start|>" in document
    (tmp_path / "base" / "tokenizer.json").write_text(document.replace("<|im_start|>", "<|other|>"))
    (tmp_path / "base" / "checksums.json").unlink()

    made = [ImportStage(outputs=str(tmp_path), path=str(tmp_path / "base"), name=name, chat="chatml") for name in "ab"]
    made[1].add_tokens = ["<tool>", "</tool>"]
    one, two = (import_.run(stage) for stage in made)
    model, tokenizer = load_checkpoint(one)
    assert tokenizer.vocab_size == size + 1 == model.config.vocab_size
    conversation = render(tokenizer, [{"role": "user", "content": "hi"}], open_assistant=True).ids
    assert conversation[0] == tokenizer.special_ids["<|im_start|>"] == size
    old, new = (one.state_dict()["core.embedding.weight"] for one in (base, model))
    assert torch.equal(new[:size], old)
    apart = (new[size:] - old.mean(0)).norm(dim=1)
    assert bool((apart > 0).all()) and bool((apart < old.std(0).norm()).all())
    more = load_checkpoint(two)[1]
    assert [more.special_ids[name] for name in ("<tool>", "</tool>", "<|im_start|>")] == [size, size + 1, size + 2]
    plain: Any = [{"role": "user", "content": "hi"}]
    theirs = AutoTokenizer.from_pretrained(two).apply_chat_template(plain, add_generation_prompt=True)
    assert theirs["input_ids"] == render(more, plain, open_assistant=True).ids
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(one)(TOKENS).logits
        torch.testing.assert_close(logits, model(TOKENS), atol=1e-4, rtol=0)
    for path, chat, named in ((tmp_path / "base", "loud", "chat=loud"), (source, "chatml", "own chat tokens")):
        with pytest.raises(ConfigError, match=named):
            import_.run(ImportStage(outputs=str(tmp_path), path=str(path), name="c", chat=chat))


def test_an_adapter_is_merged(source: Path, tmp_path: Path) -> None:
    theirs: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM"),
    )
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    theirs.save_pretrained(tmp_path / "adapter")
    folder = import_.run(ImportStage(outputs=str(tmp_path), path=str(source), merge_adapter=str(tmp_path / "adapter")))
    with torch.no_grad():
        torch.testing.assert_close(load_checkpoint(folder)[0](TOKENS), theirs.eval()(TOKENS).logits, atol=2e-2, rtol=0)
    assert "adapter/adapter_config.json" in read_manifest(folder).inputs
    with pytest.raises(ConfigError, match="merge_adapter=nowhere"):
        import_.run(ImportStage(outputs=str(tmp_path), path=str(source), name="other", merge_adapter="nowhere"))


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
