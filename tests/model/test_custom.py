"""A user's activation, attention layer and core: built from the seed, counted, generated from, saved, refused."""

import dataclasses
import warnings

import pytest
import torch

from maquette.artifacts import ConfigError, StageError
from maquette.model import (
    CustomConfig,
    LanguageModel,
    LSTMConfig,
    ScalarModel,
    TransformerConfig,
    count_parameters,
    forward_flops,
    generate,
    hf,
    initialize,
)
from maquette.model.config import ModelConfig
from maquette.recipe.shape import choose_shape
from maquette.recipe.sweeps import isoflop_curve
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

THEIRS = "support.their_models"
PLAIN = TransformerConfig(
    vocab_size=272, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32
)
TOKENS = torch.arange(60).view(3, 20) % 272


def transformer(**changes):
    return dataclasses.replace(PLAIN, **changes)


def custom(name, size=3000, **more):
    return CustomConfig(f"{THEIRS}.{name}", vocab_size=272, size=size, max_position_embeddings=32, **more)


def actual_core(model):
    return sum(p.numel() for name, p in model.core.named_parameters() if "embedding" not in name)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"attention": f"{THEIRS}.OurAttention"}, {}),
        ({"attention": f"{THEIRS}:PlainAttention"}, {}),
        ({"activation": f"{THEIRS}.squared_relu"}, {"activation": "relu2"}),
        ({"activation": f"{THEIRS}.GatedSilu"}, {"activation": "swiglu"}),
    ],
)
def test_what_a_user_wrote_like_ours_is_ours(theirs, ours):
    own, usual = transformer(**theirs), transformer(**ours)
    assert count_parameters(own) == count_parameters(usual)
    assert forward_flops(own, 64, 32) == forward_flops(usual, 64, 32)
    with torch.no_grad():
        assert torch.allclose(LanguageModel(own)(TOKENS), LanguageModel(usual)(TOKENS), atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        transformer(activation=f"{THEIRS}.Snake"),
        transformer(activation="torch.nn.PReLU", attention=f"{THEIRS}.PlainAttention"),
        custom("averages", settings={"extra": 3}),
        custom("averages", tie_word_embeddings=True),
        custom("Gru"),
    ],
    ids=lambda config: config.description,
)
def test_every_model_is_counted_and_starts_from_its_seed_alone(config):
    before = torch.random.get_rng_state()
    model = LanguageModel(config, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    count = count_parameters(config)
    assert count.core + count.head + count.embedding == sum(p.numel() for p in model.parameters())
    assert count.head == model.head_weight.numel()
    initialize(model, config, 3)
    again, other = LanguageModel(config, seed=3), LanguageModel(config, seed=4)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.state_dict()[name]), name
        if parameter.ndim > 1 and parameter.any():
            assert not torch.equal(parameter, other.state_dict()[name]), name
    scalar = ScalarModel.from_language_model(model)
    assert scalar(TOKENS).shape == TOKENS.shape
    flops = forward_flops(config, 320, 32)
    assert flops.core > 0 and flops.head == 2 * 320 * 272 * config.hidden_size


def test_an_own_parameter_keeps_its_start():
    config = transformer(activation=f"{THEIRS}.Snake")
    model = LanguageModel(config)
    initialize(model, config, 0)
    assert [p.item() for name, p in model.named_parameters() if name.endswith(".a")] == [0.5, 0.5]


def test_flops_are_counted_as_the_formula_of_a_known_model_says(monkeypatch):
    from maquette.model.lstm import LSTM

    def build(size, vocab_size):
        return LSTM(LSTMConfig(vocab_size, 16, 2))

    import support.their_models as theirs

    monkeypatch.setattr(theirs, "lstm", build, raising=False)
    own, ours = custom("lstm"), LSTMConfig(272, 16, 2)
    assert count_parameters(own) == count_parameters(ours)
    assert forward_flops(own, 640, 32) == forward_flops(ours, 640, 32)


def test_a_stated_number_of_flops_is_taken():
    own = transformer(attention=f"{THEIRS}.StatedAttention")
    attention = 2 * 4 * 16 * 16 * 2 * 32
    assert forward_flops(own, 32, 32).core == forward_flops(PLAIN, 32, 32).core - attention + 2 * 1000 * 32


@pytest.mark.parametrize(
    "config",
    [
        transformer(attention=f"{THEIRS}.PlainAttention"),
        transformer(attention=f"{THEIRS}.OurAttention", token_shift=True),
        transformer(activation=f"{THEIRS}.Snake"),
        custom("averages"),
    ],
    ids=lambda config: config.description,
)
def test_text_is_the_same_with_a_cache_and_without_and_in_any_company(config):
    model = LanguageModel(config, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # lively enough that not every row says the same
    prompts = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        together = generate(model, prompts, max_tokens=8)
    keeps = config.kind == "transformer" and config.attention != f"{THEIRS}.PlainAttention"
    assert any("keeps no cache" in str(one.message) for one in caught) != keeps
    for prompt, result in zip(prompts, together, strict=True):
        tokens = list(prompt)
        for _ in range(8):
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
        assert list(result.tokens) == tokens[len(prompt) :]


def test_a_core_that_takes_no_segments_says_so():
    model = LanguageModel(custom("Gru"))
    assert model(TOKENS).shape == (3, 20, 272)
    with pytest.raises(ConfigError, match=r"Gru takes no segments"):
        model(TOKENS, segments=torch.zeros_like(TOKENS))
    assert len(generate(model, [[1, 2, 3]], max_tokens=4)[0].tokens) == 4


@pytest.mark.parametrize(
    "config",
    [
        transformer(activation=f"{THEIRS}.Snake", attention=f"{THEIRS}.PlainAttention"),
        custom("averages", settings={"extra": 3}),
        custom("Gru"),
    ],
    ids=lambda config: config.description,
)
def test_saved_and_loaded_it_is_the_same_and_the_card_says_what_it_needs(tmp_path, config):
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    model = LanguageModel(config, seed=5)
    hf.save(model, tokenizer, tmp_path / "saved", card="# Mine")
    loaded = hf.load(tmp_path / "saved")
    assert loaded.config.own_code == config.own_code and count_parameters(loaded.config) == count_parameters(config)
    with torch.no_grad():
        assert torch.equal(loaded(TOKENS), model.eval()(TOKENS))
    assert not list((tmp_path / "saved").glob("modeling*"))
    for name in config.own_code:
        assert name in (tmp_path / "saved" / "README.md").read_text()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: transformer(activation="swiglue"), ["swiglue", "Did you mean swiglu", "package.module.Name"]),
        (lambda: count_parameters(transformer(attention=f"{THEIRS}.Nothing")), [f"{THEIRS}.Nothing"]),
        (lambda: count_parameters(transformer(attention=f"{THEIRS}.Narrow")), ["Narrow", "(1, 8, 1)"]),
        (lambda: count_parameters(custom("no_module")), ["no_module", "str", "Module"]),
        (lambda: count_parameters(custom("no_sizes")), ["no_sizes", "size", "vocab_size"]),
        (lambda: count_parameters(custom("flat")), ["flat", "(1, 8)"]),
        (lambda: custom("averages", settings={"extra": object()}), ["averages", "plain values"]),
        (lambda: count_parameters(custom("averages", settings={"more": 1})), ["averages", "more"]),
        (lambda: count_parameters(custom("fails")), ["fails", "their_models.py", "too small"]),
    ],
)  # fmt: skip
def test_what_can_not_be_built_is_named(make, words):
    with pytest.raises((ConfigError, StageError)) as caught:
        make()
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_settings_that_a_users_architecture_does_not_have_are_refused():
    ModelConfig(kind=f"{THEIRS}.averages", settings={"extra": 1}, tie_word_embeddings=True).validate()
    with pytest.raises(ConfigError, match=r"model.hidden_size means nothing"):
        ModelConfig(kind=f"{THEIRS}.averages", hidden_size=8).validate()
    with pytest.raises(ConfigError, match=r"model.settings"):
        ModelConfig(settings={"extra": 1}).validate()
    with pytest.raises(ConfigError, match=r"averagse.*(?s:.*)averages"):
        ModelConfig(kind=f"{THEIRS}.averagse").validate()
    result = ModelConfig.of_target({"_target_": f"{THEIRS}.averages", "extra": 2, "tie_word_embeddings": True})
    assert (result.kind, result.settings, result.tie_word_embeddings) == (f"{THEIRS}.averages", {"extra": 2}, True)


def test_a_users_architecture_is_asked_for_a_size_and_joins_a_sweep():
    model = ModelConfig(kind=f"{THEIRS}.averages")
    shape = choose_shape(model, 20_000, vocab_size=272, context=64)
    assert isinstance(shape, CustomConfig) and shape.size == 20_000 and shape.max_position_embeddings == 64
    count = count_parameters(shape)
    assert count.core + count.head == pytest.approx(20_000, rel=0.4)
    curve = isoflop_curve(3e11, count=3, ratio=2.0, tokens_per_parameter=20, model=model, vocab_size=272, context=64)
    assert len(curve.sizes) == 3
    wide = choose_shape(ModelConfig(activation=f"{THEIRS}.Snake"), 60_000, vocab_size=272, context=64)
    assert isinstance(wide, TransformerConfig) and wide.activation == f"{THEIRS}.Snake"
