"""LoRA on the core: begins as the model it is put on, trains nothing else, and is what `peft` makes of it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from maquette.artifacts import ConfigError, StageError
from maquette.model import LanguageModel, ScalarModel, TransformerConfig, hf
from maquette.model.adapters import WEIGHTS, adapted, attach, load_adapter, merged, save_adapter, without_adapter
from maquette.model.linear import use_backend
from maquette.objectives.losses import token_log_probs
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

LORA: dict[str, Any] = {"_target_": "peft.LoraConfig", "r": 4, "lora_alpha": 8}
TOKENS = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(0))


def config(**changes: Any) -> TransformerConfig:
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return TransformerConfig(**{**sizes, "num_key_value_heads": 2, "max_position_embeddings": 32, **changes})


def moved(model: Any) -> Any:
    """The model after one step of the adapter, with some of it in every layer."""
    loss = -token_log_probs(model(TOKENS)[:, :-1], TOKENS[:, 1:]).mean()
    loss.backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            assert parameter.requires_grad
            parameter.data -= 5.0 * parameter.grad
            parameter.grad = None
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            assert parameter.abs().max() > 0, name
    return model


@pytest.fixture
def model() -> LanguageModel:
    return LanguageModel(config(), seed=1)


def test_it_begins_as_the_model_and_trains_nothing_else(model: LanguageModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model(TOKENS)
    attach(model, LORA, seed=3)
    assert len(adapted(model)) == 2 * 7
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=0)
    moved(model)
    after = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    for name, value in before.items():
        assert torch.equal(after[name], value), name


def test_the_seed_decides_and_leaves_other_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    states = []
    for seed in (1, 1, 2):
        model = LanguageModel(config(), seed=1)
        attach(model, LORA, seed=seed)
        states.append(torch.cat([value.flatten() for name, value in model.state_dict().items() if "lora_A" in name]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert torch.equal(torch.rand(3), expected)


def test_logits_are_the_same_on_every_path(model: LanguageModel) -> None:
    """With gradients, without, compiled, with oneDNN, token by token from a cache, merged."""
    attach(model, LORA)
    moved(model)
    trained = model(TOKENS)
    with torch.no_grad():
        plain = model(TOKENS)
        torch.testing.assert_close(plain, trained, rtol=0, atol=1e-5)
        torch.testing.assert_close(merged(model)(TOKENS), trained, rtol=0, atol=1e-5)
        use_backend("onednn")
        try:
            torch.testing.assert_close(model(TOKENS), trained, rtol=0, atol=1e-5)
        finally:
            use_backend("torch")
        cache = model.new_cache(2, 16)
        pieces = [model(TOKENS[:, :5], cache=cache)]
        pieces += [model(TOKENS[:, place : place + 1], cache=cache) for place in range(5, 12)]
        torch.testing.assert_close(torch.cat(pieces, 1), trained, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            without_adapter(model)(TOKENS), LanguageModel(config(), seed=1)(TOKENS), rtol=0, atol=0
        )


@pytest.mark.slow(reason="compiles a model")
def test_compiled(model: LanguageModel) -> None:
    attach(model, LORA)
    moved(model)
    expected = model(TOKENS)
    torch.testing.assert_close(torch.compile(model)(TOKENS), expected, rtol=0, atol=1e-5)


def test_without_the_adapter_every_tensor_is_shared(model: LanguageModel) -> None:
    attach(model, LORA)
    owned = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in owned for parameter in without_adapter(model).parameters())


def test_hooks_and_wrapped_layers_are_called(model: LanguageModel) -> None:
    called: list[str] = []
    layer: Any = model.core.layers[0]
    for name in ("query", "up"):
        module = getattr(layer.attention if name == "query" else layer.feed_forward, name)
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    model(TOKENS)
    assert called == ["query", "up"]


def test_named_layers_alone(model: LanguageModel) -> None:
    attach(model, {**LORA, "target_modules": ["query", "head"]})
    assert {name.rpartition(".")[2] for name in adapted(model)} == {"query", "head"}
    moved(model)
    torch.testing.assert_close(merged(model)(TOKENS), model(TOKENS), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="adapter"):
        attach(LanguageModel(config()), {**LORA, "target_modules": ["nothing"]})
    with pytest.raises(ConfigError, match="rank"):
        attach(LanguageModel(config()), {**LORA, "rank": 3})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"bias": "all"}, "adapter.bias"),
        ({"modules_to_save": ["head"]}, "adapter.modules_to_save"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"target_modules": ["embedding"]}, "embedding"),
        ({"target_modules": ["head"], "use_dora": True}, "head"),
    ],
)
def test_what_would_change_the_model_itself_is_refused(
    model: LanguageModel, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        attach(model, LORA | settings)


def test_a_scalar_model_trains_its_score() -> None:
    model = ScalarModel(config(), seed=1)
    attach(model, LORA)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"score.weight", "score.bias"} < trained and all("lora_" in name or "score" in name for name in trained)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ({}, {}),
        ({"qk_norm": True}, {"use_dora": True}),
        ({"attention_bias": True}, {"rank_pattern": {"query": 2}}),
        ({"tie_word_embeddings": True}, {"alpha_pattern": {"down": 40}}),
    ],
)
def test_peft_makes_the_same_of_what_is_exported(
    shape: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    """The adapter over the exported base in `transformers`, the merged export, and ours: equal logits."""
    tokenizer = train_tokenizer(["the mouse ate the cheese"] * 30, TokenizerConfig(vocab_size=300))
    base = LanguageModel(config(**shape), seed=1).eval()
    hf.save(base, tokenizer, tmp_path / "base")
    model = copy.deepcopy(base)
    attach(model, LORA | settings)
    moved(model.train())
    family = hf.family_of(hf.read_config(tmp_path / "base"), tmp_path / "base")
    assert save_adapter(model, LORA | settings, family, tmp_path / "adapter", tmp_path / "base")
    hf.save(merged(model), tokenizer, tmp_path / "merged")
    with torch.no_grad():
        expected = model.eval()(TOKENS)
        theirs = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(tmp_path / "adapter")
        )
        torch.testing.assert_close(theirs.eval()(TOKENS).logits, expected, rtol=0, atol=1e-4)
        named = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter"))  # which names what it is over
        torch.testing.assert_close(named.eval()(TOKENS).logits, expected, rtol=0, atol=1e-4)
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(whole(TOKENS).logits, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            load_adapter(base, family, tmp_path / "adapter")(TOKENS), expected, rtol=0, atol=1e-4
        )


def test_adapters_of_others_are_read(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["the mouse ate the cheese"] * 30, TokenizerConfig(vocab_size=300))
    base = LanguageModel(config(), seed=1).eval()
    hf.save(base, tokenizer, tmp_path / "base")
    theirs: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(
            r=3,
            lora_alpha=6,
            use_rslora=True,
            target_modules=["q_proj", "down_proj"],
            task_type="CAUSAL_LM",
            alpha_pattern={"q_proj": 60},
        ),
    )
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    family = hf.family_of(hf.read_config(tmp_path / "base"), tmp_path / "base")
    with torch.no_grad():
        ours = load_adapter(base, family, tmp_path / "theirs")(TOKENS)
        torch.testing.assert_close(ours, theirs.eval()(TOKENS).logits, rtol=0, atol=1e-4)
    other = LanguageModel(config(hidden_size=16), seed=1)
    with pytest.raises(StageError, match="another shape"):
        load_adapter(other, family, tmp_path / "theirs")
    tensors = load_file(tmp_path / "theirs" / WEIGHTS)
    whole = dict(tensors)
    del tensors[next(name for name in tensors if "lora_B" in name)]
    save_file(tensors, tmp_path / "theirs" / WEIGHTS)
    with pytest.raises(StageError, match="lacks"):
        load_adapter(base, family, tmp_path / "theirs")
    save_file(whole, tmp_path / "theirs" / WEIGHTS)
    (tmp_path / "theirs" / WEIGHTS).write_bytes(b"no")
    with pytest.raises(StageError, match=WEIGHTS):
        load_adapter(base, family, tmp_path / "theirs")
