"""Weights come from the seed and their names alone."""

import math

import pytest
import torch

from maquette.model import (
    LanguageModel,
    LSTMConfig,
    ScalarModel,
    Transformer,
    TransformerConfig,
    build_core,
    initialize,
)
from support.model_variants import EVERY, PLAIN, RECURRENT

WIDE = TransformerConfig(
    vocab_size=500, hidden_size=128, num_hidden_layers=8, num_attention_heads=4, token_shift=True, bias=True
)


def test_scale_of_each_kind() -> None:
    weights = LanguageModel(WIDE).state_dict()
    small = 0.02 / math.sqrt(2 * 8)
    for name, value in weights.items():
        if name.endswith("bias"):
            assert (value == 0).all()
        elif name == "core.token_shift":
            assert torch.equal(value, torch.full((128,), 0.3))
        elif value.ndim == 1:
            assert (value == 1).all(), name
        else:
            expected = small if name.endswith(("output.weight", "down.weight")) else 0.02
            assert value.std().item() == pytest.approx(expected, rel=0.03), name
            assert abs(value.mean().item()) < expected / 20


@pytest.mark.parametrize("name", EVERY)
def test_a_seed_gives_the_same_weights_and_leaves_random_numbers_alone(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (LanguageModel(EVERY[name], seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    matrices = [key for key in first if first[key].ndim > 1]
    assert not any(torch.equal(first[key], other[key]) for key in matrices)
    assert len({first[key].flatten()[0].item() for key in matrices}) == len(matrices)


@pytest.mark.parametrize("name", EVERY)
def test_the_core_is_the_same_under_every_head(name: str) -> None:
    """Alone, under both heads, and with a pretrained core's weights loaded: bit-identical."""
    config = EVERY[name]
    core = build_core(config, seed=3).state_dict()
    language, scalar = LanguageModel(config, seed=3), ScalarModel(config, seed=3)
    for model in (language, scalar):
        assert model.core.state_dict().keys() == core.keys()
        assert all(torch.equal(value, core[key]) for key, value in model.core.state_dict().items())

    with torch.no_grad():
        for parameter in language.parameters():
            parameter.add_(torch.rand_like(parameter))  # what pretraining would do
    trained = language.core.state_dict()
    fresh = LanguageModel(config, seed=4)
    fresh.core.load_state_dict(trained)
    for model in (fresh, ScalarModel.from_language_model(language)):
        assert all(torch.equal(value, trained[key]) for key, value in model.core.state_dict().items())
    copied = ScalarModel.from_language_model(language)
    assert not {p.data_ptr() for p in copied.parameters()} & {p.data_ptr() for p in language.parameters()}


def test_precision_comes_after_the_draw() -> None:
    half = LanguageModel(PLAIN).to(torch.bfloat16)
    initialize(half, PLAIN, seed=0)
    expected = LanguageModel(PLAIN, seed=0).to(torch.bfloat16)
    for ours, theirs in zip(half.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_recurrent_weights() -> None:
    config = LSTMConfig(vocab_size=23, hidden_size=64, num_hidden_layers=2)
    state = build_core(config).state_dict()
    bound = 1 / math.sqrt(64)
    for layer in range(2):
        for kind in ("ih", "hh"):
            weight = state[f"lstm.weight_{kind}_l{layer}"]
            assert weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        forget = state[f"lstm.bias_ih_l{layer}"] + state[f"lstm.bias_hh_l{layer}"]
        assert torch.equal(forget, torch.cat([torch.zeros(64), torch.ones(64), torch.zeros(128)]))


def test_scalar_models_start_near_zero() -> None:
    tokens = torch.randint(500, (4, 32))
    scores = ScalarModel(WIDE)(tokens)
    assert scores.shape == (4, 32)
    assert 0.3 < scores.std().item() < 3.0  # of the order of one, whatever the width
    assert ScalarModel(RECURRENT["lstm"])(tokens % 23).shape == (4, 32)


def test_state_dict_names() -> None:
    """Names that checkpoints, exports and imports rely on."""
    names = set(LanguageModel(TransformerConfig(10, 8, 1, 2, qk_norm=True, token_shift=True, bias=True)).state_dict())
    layer = "core.layers.0."
    linear = {f"attention.{part}" for part in ("query", "key", "value", "output")}
    linear |= {f"feed_forward.{part}" for part in ("gate", "up", "down")}
    norms = {"attention_norm", "feed_forward_norm", "attention.query_norm", "attention.key_norm"}
    expected = {f"{layer}{part}.{kind}" for part in linear for kind in ("weight", "bias")}
    expected |= {f"{layer}{norm}.weight" for norm in norms}
    assert names == expected | {"core.embedding.weight", "core.token_shift", "core.norm.weight", "head.weight"}
    assert isinstance(LanguageModel(PLAIN).core, Transformer)
