"""muP: the factors by hand, the coordinate check, and a model that is an ordinary one outside."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maquette.model import LanguageModel, LSTMConfig, TransformerConfig, initialize
from maquette.model.likelihoods import next_token_loss
from maquette.model.parametrization import STANDARD, Parametrization
from maquette.optimization import build_optimizer
from maquette.optimization.config import AdamWConfig, MuonConfig

MUP = Parametrization("mup", base_hidden_size=32, base_head_dim=16)


def config(width: int, **changes: object) -> TransformerConfig:
    """Three layers with heads as wide as their number allows: both grow."""
    return TransformerConfig(  # type: ignore[arg-type]
        vocab_size=64, hidden_size=width, num_hidden_layers=3, num_attention_heads=2, intermediate_size=3 * width,
        max_position_embeddings=16,
        token_shift=True, **changes,
    )  # fmt: skip


def build(shape: TransformerConfig | LSTMConfig, parametrization: Parametrization, seed: int = 0) -> LanguageModel:
    model = LanguageModel(shape, seed=seed)
    initialize(model, shape, seed, parametrization=parametrization)
    return model


def test_at_the_base_width_it_is_the_standard_one() -> None:
    shape = config(32)
    one, other = build(shape, STANDARD).state_dict(), build(shape, MUP).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    model = LanguageModel(shape)
    assert {MUP.rate_factor(name, model) for name, _ in model.named_parameters()} == {1.0}


def test_initial_weights_follow_the_width() -> None:
    weights, standard = build(config(128), MUP).state_dict(), build(config(128), STANDARD).state_dict()
    factors = {name: (weights[name].norm() / standard[name].norm()).item() for name in weights if weights[name].any()}
    for name, factor in factors.items():
        expected = 1.0
        if name == "head.weight":
            expected = 1 / 4
        elif "layers" in name and not name.endswith("norm.weight"):
            expected = 1 / 2 * (1 / 2 if "query" in name else 1)
        assert factor == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_every_parameter_has_its_rate(kind: str) -> None:
    shape = config(128) if kind == "transformer" else LSTMConfig(64, 128, 2)
    model = LanguageModel(shape)
    optimizer = build_optimizer(model, AdamWConfig(), learning_rate=0.01, weight_decay=0.1, parametrization=MUP)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            matrix = parameter.ndim == 2 and "embedding" not in name
            share = (1 / 4) * (1 / 2 if "query" in name else 1) if matrix else 1.0
            assert group["lr"] == pytest.approx(0.01 * share), name
            # The decay of a step does not fade with the rate.
            assert group["lr"] * group["weight_decay"] == pytest.approx(0.001 if matrix else 0.0), name
    assert seen == set(names.values())


def activations(width: int, parametrization: Parametrization, steps: int) -> dict[str, float]:
    """How far the residual stream and the logits have moved after some steps at one rate: root mean squares."""
    model = build(config(width), parametrization)
    optimizer = build_optimizer(
        model, AdamWConfig(), learning_rate=0.01, weight_decay=0.0, parametrization=parametrization
    )
    tokens = torch.randint(0, 64, (8, 17), generator=torch.Generator().manual_seed(1))
    seen: dict[str, Tensor] = {}
    for index, layer in enumerate(model.core.layers):
        layer.register_forward_hook(lambda _, __, out, at=index: seen.__setitem__(f"layer {at}", out.detach()))

    def snapshot() -> dict[str, Tensor]:
        seen["logits"] = model(tokens[:, :-1]).detach()
        return dict(seen)

    with torch.no_grad():
        before = snapshot()
    for _ in range(steps):
        optimizer.zero_grad()
        hidden = model.core(tokens[:, :-1])
        next_token_loss(hidden, model.head_weight, tokens[:, 1:])[0].backward()
        optimizer.step()
    with torch.no_grad():
        after = snapshot()
    return {name: (after[name] - before[name]).square().mean().sqrt().item() for name in after}


def growth(parametrization: Parametrization) -> dict[str, float]:
    """Exponent of each movement in the width."""
    widths = torch.tensor([32.0, 64.0, 128.0, 256.0])
    moved = [activations(int(width), parametrization, steps=3) for width in widths]
    x = widths.log() - widths.log().mean()
    logs = {name: torch.tensor([one[name] for one in moved]).log() for name in moved[0]}
    return {name: float((x * (y - y.mean())).sum() / x.square().sum()) for name, y in logs.items()}


@pytest.mark.slow(reason="trains models of several widths in both parametrizations")
def test_coordinate_check() -> None:
    """Yang et al. 2022, section D.1: under muP what a few steps change does not depend on width; otherwise it does."""
    mup, standard = growth(MUP), growth(STANDARD)
    assert mup.keys() == {"layer 0", "layer 1", "layer 2", "logits"}
    assert all(abs(exponent) < 0.25 for exponent in mup.values()), mup
    assert standard["logits"] > 0.5 and standard["layer 2"] > 0.5, standard


@pytest.mark.slow(reason="imports transformers")
def test_an_exported_model_is_an_ordinary_one(tmp_path: Path) -> None:
    """Nothing is multiplied in the forward pass, so nothing can be forgotten when the weights leave."""
    transformers = pytest.importorskip("transformers")
    from maquette.model import hf
    from maquette.text import Tokenizer
    from maquette.text.config import TokenizerConfig
    from maquette.text.training import train_tokenizer

    tokenizer: Tokenizer = train_tokenizer(["text"], TokenizerConfig(kind="byte"))
    shape = TransformerConfig(
        tokenizer.vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=32
    )
    model = build(shape, MUP).eval()
    hf.save(model, tokenizer, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokens = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(tokens)
        torch.testing.assert_close(theirs(tokens).logits, logits, atol=1e-4, rtol=1e-4)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    assert math.isfinite(logits.abs().max().item()) and logits.abs().max() > 0


def test_muon_keeps_its_own_rate() -> None:
    model = LanguageModel(config(128))
    optimizer = build_optimizer(model, MuonConfig(), learning_rate=0.01, weight_decay=0.0, parametrization=MUP)
    rates = sorted({group["lr"] for group in optimizer.param_groups})
    assert rates == pytest.approx([0.0025, 0.01, 0.02])  # head; embedding and vectors; hidden matrices by Muon
