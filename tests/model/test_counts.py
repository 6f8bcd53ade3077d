"""Shapes that go together, and exact counts of parameters and FLOPs."""

import dataclasses
import re

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from maquette.artifacts import ConfigError
from maquette.model import (
    LanguageModel,
    LSTMConfig,
    TransformerConfig,
    count_parameters,
    forward_flops,
    kaplan_compute,
    next_token_loss,
    training_flops,
)
from support.model_variants import EVERY, PLAIN, VARIANTS, lively, some_tokens


@pytest.mark.parametrize("name", EVERY)
def test_parameters_are_counted_by_part(name: str) -> None:
    model, count = LanguageModel(EVERY[name]), count_parameters(EVERY[name])
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    embedding = sizes.pop("core.embedding.weight")
    head = embedding if model.config.tie_word_embeddings else sizes.pop("head.weight")
    assert (count.core + count.inactive, count.head) == (sum(sizes.values()), head)
    assert count.embedding == (0 if model.config.tie_word_embeddings else embedding)
    assert count.total == sum(parameter.numel() for parameter in model.parameters())


def test_a_known_model_has_its_known_size() -> None:
    gpt2 = TransformerConfig(
        50257, 768, 12, 12, max_position_embeddings=1024, normalization="layernorm", positions="learned",
        activation="gelu",
        bias=True, tie_word_embeddings=True,
    )  # fmt: skip
    assert count_parameters(gpt2).total == 124_439_808
    llama = TransformerConfig(32_000, 4096, 32, 32, intermediate_size=11_008)
    assert count_parameters(llama).total == 6_738_415_616


@pytest.mark.parametrize("name", VARIANTS)
def test_flops_are_those_that_the_products_have(name: str) -> None:
    """Whether or not the loss is computed in chunks, whose backward products come early."""
    # In its plain form attention multiplies what a window hides too: see the next test.
    model, tokens = (
        lively(dataclasses.replace(VARIANTS[name], sliding_window=None, layer_types=None)),
        some_tokens(2, 9),
    )
    counted = []
    for logits_limit in (10**6, 100):
        # PyTorch counts products, and attention where it is made of them: in its plain form.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            hidden = model.core(tokens[:, :-1])
            loss = next_token_loss(hidden, model.head_weight, tokens[:, 1:], logits_limit=logits_limit)[0]
            loss.backward()
        counted.append(counter.get_total_flops())
    assert counted == [training_flops(model.config, 16, 8).total] * 2
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(tokens[:, :-1])
    assert counter.get_total_flops() == forward_flops(model.config, 16, 8).total


def test_windows_take_as_many_flops_as_they_are_wide() -> None:
    whole = dataclasses.replace(PLAIN, num_hidden_layers=3)
    local = dataclasses.replace(whole, sliding_window=4, layer_types=("full_attention", "sliding_attention"))
    attention = forward_flops(whole, 100, 16).attention
    assert forward_flops(local, 100, 16).attention == attention * (2 + 4 / 16) / 3
    assert forward_flops(local, 100, 3).attention == forward_flops(whole, 100, 3).attention
    assert forward_flops(local, 100, 16).core == forward_flops(whole, 100, 16).core
    assert count_parameters(local) == count_parameters(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ("sliding_attention",)}, "no sliding_window"),
        ({"layer_types": ("local",), "sliding_window": 4}, "layer_types=local"),
        ({"sliding_window": 0}, "sliding_window=0 is out of range"),
        ({"sliding_window": 4, "attention": "stranger.model.Attention"}, "means nothing to the attention layer"),
    ],
)
def test_windows_that_mean_nothing(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        dataclasses.replace(PLAIN, **changes)


def test_flops_by_part_and_by_kaplan() -> None:
    config = TransformerConfig(
        vocab_size=1000, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256
    )
    count = training_flops(config, tokens=100, context=50)
    assert count.core == 6 * 100 * 3 * (4 * 64 * 64 + 3 * 64 * 256)
    assert count.attention == 3 * 100 * 3 * 4 * 50 * 64
    assert count.head == 6 * 100 * 1000 * 64
    assert count.total == count.core + count.attention + count.head
    assert kaplan_compute(config, 100) == 6 * 100 * count_parameters(config).core
    lstm = training_flops(LSTMConfig(1000, 64, 2), tokens=100, context=50)
    assert (lstm.core, lstm.attention, lstm.head) == (6 * 100 * 2 * 8 * 64 * 64, 0, 6 * 100 * 1000 * 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size=12 is not a multiple of num_attention_heads=5"),
        (
            {"num_attention_heads": 4, "num_key_value_heads": 3},
            "num_attention_heads=4 is not a multiple of num_key_value_heads=3",
        ),
        ({"num_attention_heads": 4}, "a head is 3 wide"),
        ({"hidden_size": 0}, "hidden_size=0 is out of range"),
        ({"normalization": "batchnorm"}, "normalization=batchnorm is not known.\n  Allowed: rmsnorm, layernorm"),
        ({"positions": "alibi"}, "positions=alibi"),
        ({"activation": "relu"}, "activation=relu"),
        ({"dropout": 1.0}, "dropout=1.0 is out of range"),
        ({"logit_softcap": -1.0}, "logit_softcap=-1.0 is out of range"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        dataclasses.replace(PLAIN, **changes)


def test_usual_values() -> None:
    config = TransformerConfig(vocab_size=10, hidden_size=128, num_hidden_layers=1, num_attention_heads=4)
    assert (config.key_value_heads, config.width_of_head, config.inner_width) == (4, 32, 352)
    assert dataclasses.replace(config, activation="gelu").inner_width == 512
    assert dataclasses.replace(config, bias=True).query_key_value_bias
    assert not dataclasses.replace(config, bias=True, attention_bias=False).query_key_value_bias
