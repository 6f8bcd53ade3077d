"""Activations computed again: the same bits, and what is computed twice."""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from maquette.model import LanguageModel, TransformerConfig
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.model.adapters import attach
from maquette.model.config import ACTIVATION_CHECKPOINTING
from maquette.model.linear import current_backend, use_backend
from support.model_variants import VARIANTS, lively, some_tokens

KINDS = ("block", "selective")


def gradients(model: Any, kind: str, loss: Callable[[Any], Tensor]) -> list[Tensor | None]:
    checkpoint_blocks(model.core.layers, kind)
    model.zero_grad()
    torch.manual_seed(0)  # for dropout
    loss(model).backward()
    return [parameter.grad for parameter in model.parameters()]


def same(one: list[Tensor | None], other: list[Tensor | None]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("variant", ["token_shift", "gpt2", "all_at_once"])
def test_gradients_are_the_same_bits(variant: str) -> None:
    model = lively(VARIANTS[variant]).train()
    tokens, segments = some_tokens(2, 9), torch.tensor([[0] * 4 + [1] * 5] * 2)

    def loss(model: Any) -> Tensor:
        return model(tokens, segments=segments).square().mean()

    expected = gradients(model, "none", loss)
    assert all(same(gradients(model, kind, loss), expected) for kind in KINDS)


@pytest.mark.parametrize("how", ["dropout", "bfloat16", "onednn", "adapter"])
def test_gradients_are_the_same_bits_however_they_are_computed(how: str) -> None:
    config = TransformerConfig(50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, dropout=0.2)
    model, tokens = LanguageModel(config), torch.randint(50, (2, 12))
    if how == "adapter":
        attach(model, {"_target_": "peft.LoraConfig", "r": 2, "lora_dropout": 0.1})
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    context = torch.autocast("cpu", torch.bfloat16) if how == "bfloat16" else contextlib.nullcontext()
    before = current_backend()
    use_backend("onednn" if how == "onednn" else "torch")
    try:
        with context:
            expected = gradients(model, "none", lambda model: model(tokens).square().mean())
            for kind in KINDS:
                assert same(gradients(model, kind, lambda model: model(tokens).square().mean()), expected)
    finally:
        use_backend(before)


class Calls(TorchDispatchMode):
    """How often each operation is really computed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func).split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def test_norms_are_computed_twice_and_products_once() -> None:
    model = LanguageModel(
        TransformerConfig(50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, normalization="layernorm")
    )
    counts = {}
    for kind in ACTIVATION_CHECKPOINTING:
        with Calls() as calls:
            gradients(model, kind, lambda model: model(torch.randint(50, (2, 12))).sum())
        counts[kind] = calls.counts["native_layer_norm"], calls.counts["mm"]
    products = counts["none"][1]
    assert counts["none"][0] == 2 * 3 + 1
    assert counts["selective"] == (4 * 3 + 1, products)
    assert counts["block"][0] == 4 * 3 + 1 and counts["block"][1] > products


@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients_nothing_is_computed_twice(kind: str) -> None:
    model = lively(VARIANTS["llama"])
    checkpoint_blocks(model.core.layers, kind)
    calls: list[nn.Module] = []
    for layer in model.core.layers:
        layer.feed_forward.register_forward_hook(lambda module, *_: calls.append(module))
    with torch.no_grad():
        model(some_tokens(1, 5), cache=model.new_cache(1, 8))
    assert len(calls) == 2
    checkpoint_blocks(model.core.layers, "none")
    assert all(layer.forward.__func__ is type(layer).forward for layer in model.core.layers)
