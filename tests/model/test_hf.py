"""Hugging Face folders: the same logits, weights and text as `transformers`, and refusals that name what is wrong."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from maquette.artifacts import StageError
from maquette.model import LanguageModel, LSTMConfig, MixtureOfExpertsConfig, TransformerConfig, hf
from maquette.model.experts_config import ExpertSettings
from maquette.model.generation import document_prompt, generate
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 64,
}  # fmt: skip
GPT2_SIZES: dict[str, Any] = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
FOREIGN = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "llama, other base, tied": lambda: transformers.LlamaConfig(
        **SIZES, rope_theta=500_000.0, tie_word_embeddings=True
    ),
    "llama, biases, wide heads": lambda: transformers.LlamaConfig(
        **SIZES, attention_bias=True, mlp_bias=True, head_dim=16
    ),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=16),
    "mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=5, num_experts_per_tok=2),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **SIZES, head_dim=16, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24, norm_topk_prob=True
    ),
    "qwen3_moe, other weights": lambda: transformers.Qwen3MoeConfig(
        **SIZES, head_dim=8, num_experts=4, num_experts_per_tok=1, moe_intermediate_size=40, tie_word_embeddings=True
    ),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=5),
    "qwen2, windows in the upper layers": lambda: transformers.Qwen2Config(
        **SIZES, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen3, local and global": lambda: transformers.Qwen3Config(
        **SIZES, use_sliding_window=True, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt2": lambda: transformers.GPT2Config(**GPT2_SIZES),
    "gpt2, untied, narrow": lambda: transformers.GPT2Config(**GPT2_SIZES, n_inner=40, tie_word_embeddings=False),
}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {"num_key_value_heads": 2}),
    "llama, tied": ("LlamaForCausalLM", {"tie_word_embeddings": True, "rope_theta": 5000.0}),
    "llama, biases": ("LlamaForCausalLM", {"bias": True}),
    "qwen2": ("Qwen2ForCausalLM", {"attention_bias": True}),
    "qwen3": ("Qwen3ForCausalLM", {"qk_norm": True, "head_dim": 10, "num_key_value_heads": 1}),
    "gpt2": (
        "GPT2LMHeadModel",
        {
            "normalization": "layernorm",
            "positions": "learned",
            "activation": "gelu",
            "bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "mixtral": ("MixtralForCausalLM", {"num_experts": 6, "intermediate_size": 24, "num_key_value_heads": 2}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {"num_experts": 6, "qk_norm": True, "intermediate_size": 24}),
    "qwen3_moe, other weights": (
        "Qwen3MoeForCausalLM",
        {"num_experts": 4, "qk_norm": True, "norm_topk_prob": False, "num_experts_per_tok": 3},
    ),
    "experts with a shared one": (
        "MaquetteForCausalLM",
        {"num_experts": 4, "n_shared_experts": 2, "norm_topk_prob": False, "token_shift": True},
    ),
    "experts with a bias": ("MaquetteForCausalLM", {"num_experts": 5, "router_bias_update_rate": 0.01}),
    "mistral": ("MistralForCausalLM", {"sliding_window": 5, "num_key_value_heads": 2}),
    "local and global": (
        "MaquetteForCausalLM",
        {"sliding_window": 5, "layer_types": ("sliding_attention", "full_attention"), "token_shift": True},
    ),
    "window": ("MaquetteForCausalLM", {"sliding_window": 3, "token_shift": True}),
    "qwen3, local and global": (
        "Qwen3ForCausalLM",
        {"qk_norm": True, "sliding_window": 5, "layer_types": ("full_attention", "sliding_attention")},
    ),
    "token shift": ("MaquetteForCausalLM", {"token_shift": True, "num_key_value_heads": 2}),
    "relu2, soft cap, tied": (
        "MaquetteForCausalLM",
        {"activation": "relu2", "logit_softcap": 5.0, "tie_word_embeddings": True},
    ),
    "layernorm without bias, learned": (
        "MaquetteForCausalLM",
        {"normalization": "layernorm", "positions": "learned", "activation": "gelu", "token_shift": True},
    ),
    "everything": (
        "MaquetteForCausalLM",
        {"qk_norm": True, "bias": True, "head_dim": 12, "num_key_value_heads": 1, "normalization_eps": 1e-3},
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


def scatter(model: torch.nn.Module, seed: int = 0) -> Any:
    """Gives every parameter, norms and biases too, a value that makes a difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("router_bias"):
                buffer.add_(torch.randn(buffer.shape, generator=generator), alpha=0.1)
    return model.eval()


def tokens(rows: int = 2, length: int = 20, vocabulary: int = 272) -> torch.Tensor:
    return torch.randint(16, vocabulary, (rows, length), generator=torch.Generator().manual_seed(1))


def foreign(name: str, folder: Path, **save: Any) -> Any:
    model = scatter(transformers.AutoModelForCausalLM.from_config(FOREIGN[name]()))
    model.save_pretrained(folder, **save)
    return model


def ours(name: str) -> LanguageModel:
    sizes = {
        "vocab_size": 280,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    }
    kind = MixtureOfExpertsConfig if "num_experts" in OURS[name][1] else TransformerConfig
    return scatter(LanguageModel(kind(**(sizes | OURS[name][1]))))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", FOREIGN)
def test_logits_of_foreign_models(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Loaded and saved again, a model of `transformers` keeps its logits, its weights to the bit, its greedy text."""
    theirs = foreign(name, tmp_path / "theirs")
    model = hf.load(tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(model(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)
    hf.save(model, tokenizer, tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert type(again) is type(theirs)
    assert again.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in again.state_dict().items())
    prompt = tokens(1, 5)
    text = again.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 5:].tolist()
    assert list(generate(model, prompt.tolist(), max_tokens=12)[0].tokens) == text


@pytest.mark.parametrize("name", OURS)
def test_our_models_in_transformers(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = ours(name)
    hf.save(model, tokenizer, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [OURS[name][0]]
    back = hf.load(tmp_path / "out")
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in back.state_dict().items())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    with torch.no_grad():
        torch.testing.assert_close(back(tokens()), model(tokens()), atol=0, rtol=0)
        torch.testing.assert_close(theirs(tokens()).logits, model(tokens()), atol=1e-4, rtol=0)
    prompts = [row[:length].tolist() for row, length in zip(tokens(2), (4, 9), strict=True)]
    padded = torch.tensor([[1] * 5 + prompts[0], prompts[1]])
    text = theirs.generate(padded, attention_mask=(padded != 1).long(), max_new_tokens=12, eos_token_id=None)
    result = generate(model, prompts, max_tokens=12)
    assert [list(row.tokens) for row in result] == text[:, 9:].tolist()


def test_nothing_that_a_model_is_gets_lost_in_its_export(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Every field of a configuration comes back, whichever family expresses it; what a model is not is not made up."""
    plain = TransformerConfig(tokenizer.vocab_size, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    changes: list[dict[str, Any]] = [
        {}, {"num_key_value_heads": 2}, {"head_dim": 16}, {"intermediate_size": 40}, {"max_position_embeddings": 99},
        {"normalization": "layernorm"}, {"normalization_eps": 1e-4}, {"positions": "learned"}, {"rope_theta": 5e4},
        {"activation": "gelu"}, {"qk_norm": True}, {"tie_word_embeddings": True}, {"bias": True},
        {"attention_bias": True}, {"logit_softcap": 20.0}, {"token_shift": True}, {"dropout": 0.25},
        {"sliding_window": 5}, {"sliding_window": 5, "layer_types": ("sliding_attention",), "qk_norm": True},
        {"normalization": "layernorm", "positions": "learned", "activation": "gelu", "bias": True, "dropout": 0.25},
        {"normalization": "layernorm", "positions": "learned", "activation": "gelu", "bias": True, "sliding_window": 5},
    ]  # fmt: skip
    assert {name for change in changes for name in change} >= {
        field.name for field in dataclasses.fields(plain) if field.default is not dataclasses.MISSING
    } - {"attention"}
    for number, change in enumerate(changes):
        config = dataclasses.replace(plain, **change)
        hf.save(LanguageModel(config, seed=0), tokenizer, tmp_path / str(number))
        again = hf.load(tmp_path / str(number)).config
        names = {"key_value_heads": "num_key_value_heads", "width_of_head": "head_dim",
                 "inner_width": "intermediate_size", "query_key_value_bias": "attention_bias",
                 "windows": "layer_types"}  # fmt: skip
        for ours, theirs in names.items():
            assert getattr(again, ours) == getattr(config, ours), theirs
        unset = dict.fromkeys(names.values())
        assert dataclasses.replace(again, **unset) == dataclasses.replace(config, **unset), change


@pytest.mark.parametrize("qk_norm", [False, True])
def test_nothing_that_a_mixture_is_gets_lost_in_its_export(tmp_path: Path, tokenizer: Tokenizer, qk_norm: bool) -> None:
    plain = MixtureOfExpertsConfig(tokenizer.vocab_size, 32, 1, 4, 4, 8, 24, qk_norm=qk_norm)
    changes: list[dict[str, Any]] = [
        {"num_experts": 3}, {"num_experts_per_tok": 4}, {"n_shared_experts": 1}, {"norm_topk_prob": False},
        {"router_aux_loss_coef": 0.5}, {"router_z_loss_coef": 0.0}, {"router_bias_update_rate": 0.1},
        {"sliding_window": 7},
    ]  # fmt: skip
    assert {name for change in changes for name in change} >= {one.name for one in dataclasses.fields(ExpertSettings)}
    for number, change in enumerate(changes):
        config = dataclasses.replace(plain, **change)
        hf.save(LanguageModel(config, seed=0), tokenizer, tmp_path / str(number))
        again: Any = hf.load(tmp_path / str(number)).config
        assert dataclasses.replace(again, attention_bias=None) == config, change


def test_files_and_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = hf.save(ours("token shift"), tokenizer, tmp_path / "out", card="# A model\n")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "checksums.json", "config.json", "generation_config.json", "model.safetensors",
        "modeling_maquette.py", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    modes = {path.stat().st_mode for path in folder.iterdir() if path.name != "modeling_maquette.py"}
    assert len(modes) == 1, "readable by all or by none"
    settings = transformers.GenerationConfig.from_pretrained(folder)
    assert set(settings.eos_token_id) == tokenizer.stop_ids
    assert settings.pad_token_id == tokenizer.padding_id


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_changed_byte_of_what_we_wrote_is_noticed(tmp_path: Path, tokenizer: Tokenizer, file: str) -> None:
    folder = hf.save(ours("llama"), tokenizer, tmp_path / "out")
    whole = (folder / file).read_bytes()
    for place in range(0, len(whole), len(whole) // 40):
        (folder / file).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(StageError, match=re.escape(file)):
            hf.load(folder)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = ours("llama")
    folder = hf.save(model, tokenizer, tmp_path / "whole")
    with torch.no_grad():
        model.core.norm.weight[0] = float("nan")
    with pytest.raises(StageError, match=r"norm.*holds NaN"):
        hf.save(model, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (folder / "checksums.json").unlink()  # as a folder of others
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"model\.safetensors: model\.norm\.weight holds NaN or infinite"):
        hf.load(folder)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt2", "token shift"])
def test_tokenizer_in_transformers(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The same ids, after the document token that stands before each text in training; text comes back exactly."""
    folder = hf.save(ours(name), tokenizer, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    text = "  Grüße 🌍, 327 of  1000\n    naïve , isn't it"
    assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
    assert theirs(text).input_ids == document_prompt(tokenizer, text) == [0, *tokenizer.encode(text)]
    assert theirs.decode(tokenizer.encode(text)) == text
    assert (theirs.bos_token_id, theirs.pad_token_id) == (tokenizer.document_id, tokenizer.padding_id)


def test_lstm_round_trip(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = scatter(
        LanguageModel(LSTMConfig(vocab_size=280, hidden_size=16, num_hidden_layers=2, tie_word_embeddings=True))
    )
    folder = hf.save(model, tokenizer, tmp_path / "out")
    assert not (folder / "modeling_maquette.py").exists()
    back = hf.load(folder)
    assert back.config == model.config
    with torch.no_grad():
        assert torch.equal(back(tokens()), model(tokens()))


def test_long_context_of_the_core_is_written(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = ours("llama")
    model.core.change_context(max_position_embeddings=128, rope_theta=40_000.0)
    back = hf.load(hf.save(model, tokenizer, tmp_path / "out"))
    assert (back.config.max_position_embeddings, back.config.rope_theta) == (128, 40_000.0)
    with torch.no_grad():
        assert torch.equal(back(tokens()), model(tokens()))


def test_sharded(tmp_path: Path) -> None:
    theirs = foreign("llama", tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    with torch.no_grad():
        torch.testing.assert_close(hf.load(tmp_path)(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(StageError, match=r"model-00002-of-\d+.safetensors is missing"):
        hf.load(tmp_path)


def test_names_of_old_files(tmp_path: Path) -> None:
    """The first GPT-2 files leave out the prefix and carry the causal mask as a buffer."""
    theirs = foreign("gpt2", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    state["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    save_file(state, tmp_path / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(hf.load(tmp_path)(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)


def test_half_precision(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = ours("llama").to(torch.bfloat16)
    folder = hf.save(model, tokenizer, tmp_path / "out")
    assert hf.load(folder).head_weight.dtype == torch.float32
    back = hf.load(folder, dtype=None)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in back.state_dict().items())
    assert transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, r"rope_type=llama3 is not supported"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_type=linear is not supported"),
        ("llama", {"hidden_act": "gelu"}, r"hidden_act=gelu is not supported"),
        ("llama", {"attention_bias": True}, r"mlp_bias=False is not supported"),
        ("llama", {"quantization_config": {"bits": 4}}, r"quantised"),
        ("llama", {"num_attention_heads": 3, "head_dim": None}, r"num_key_value_heads"),
        ("llama", {"hidden_size": None}, r"hidden_size is missing"),
        ("llama", {"architectures": ["MambaForCausalLM"]}, r"MambaForCausalLM is not known"),
        ("llama", {"architectures": None, "model_type": "mamba"}, r"mamba is not known"),
        ("llama", {"vocab_size": 299}, r"model.embed_tokens.weight has the shape \(300, 32\)"),
        ("llama", {"num_hidden_layers": 1}, r"a tensor too many, model.layers.1.*and 8 more"),
        ("llama", {"num_hidden_layers": 3}, r"lacks the tensor model.layers.2.*and 8 more"),
        ("llama", {"tie_word_embeddings": True}, r"lm_head.weight differs from the embedding"),
        (
            "qwen2",
            {"layer_types": ["full_attention"]},
            r"layer_types=\['full_attention'\] is not supported.\n.*each of 2 layers",
        ),
        ("qwen3", {"layer_types": ["full_attention", "linear_attention"]}, r"layer_types=linear_attention"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, r"layer_types=sliding_attention"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, r"scale_attn_by_inverse_layer_idx=True"),
        ("gpt2", {"activation_function": "relu"}, r"activation_function=relu"),
        ("llama", {"embedding_multiplier": 12.0}, r"embedding_multiplier=12.0 is not supported"),
        ("qwen3", {"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping=50.0 is not supported"),
    ],
)
def test_refusals(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    foreign(name, tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(StageError, match=message):
        hf.load(tmp_path)


def test_refuses_pickled_weights(tmp_path: Path) -> None:
    foreign("llama", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(StageError, match=r"pytorch_model\.bin only") as error:
        hf.load(tmp_path)
    assert "save_pretrained" in error.value.hint


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    foreign("llama", tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StageError, match=r"model.safetensors is damaged"):
        hf.load(tmp_path)
    weights.unlink()
    with pytest.raises(StageError, match=r"model.safetensors is missing"):
        hf.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StageError, match=r"config.json is damaged"):
        hf.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(StageError, match=r"config.json is missing"):
        hf.load(tmp_path)
    with pytest.raises(StageError, match="is not a folder"):
        hf.load(tmp_path / "nowhere")


def test_older_rope_settings(tmp_path: Path) -> None:
    """transformers 4 writes rope_theta at the top, and 5 reads that too."""
    theirs = foreign("llama, other base, tied", tmp_path)
    edit_config(tmp_path, rope_parameters=None, rope_theta=500_000.0)
    with torch.no_grad():
        torch.testing.assert_close(hf.load(tmp_path)(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)


def test_foreign_tokenizer_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    small = LanguageModel(TransformerConfig(vocab_size=100, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(StageError, match="272 tokens and the model knows 100"):
        hf.save(small, tokenizer, tmp_path / "out")
    assert not any(tmp_path.iterdir())
