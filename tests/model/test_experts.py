"""Mixtures of experts: routing and its losses against `transformers`, both ways to multiply, and what they refuse."""

import dataclasses
import math
import re

import pytest
import torch
from torch import Tensor

from maquette.artifacts import ConfigError
from maquette.model import LanguageModel, MixtureOfExpertsConfig, ScalarModel, count_parameters, training_flops
from maquette.model import experts as experts_module
from maquette.model.adapters import adapted, attach
from maquette.model.config import ModelConfig
from maquette.model.experts import MixtureOfExperts, grouped, mixtures_of, recorded, through_experts
from maquette.model.parametrization import Parametrization
from maquette.model.routing import (
    balanced_bias,
    expert_counts,
    load_balancing_loss,
    load_figures,
    route,
    router_z_loss,
)
from maquette.recipe.post_training import adapter_parameters
from maquette.recipe.pretraining import resolve
from support.model_variants import VARIANTS, lively, some_tokens


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_the_load_balancing_loss_is_that_of_transformers(top_k: int) -> None:
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    logits = random(40, 5).float().requires_grad_()
    expected = mixtral.load_balancing_loss_func((logits,), 5, top_k)
    _, chosen = route(logits, top_k, normalize=True)
    loss = load_balancing_loss(logits, expert_counts(chosen, 5), top_k)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_losses_at_their_known_values() -> None:
    even = torch.zeros(8, 4)
    assert load_balancing_loss(even, torch.full((4,), 4), 2).item() == pytest.approx(2.0)  # k, at even loads
    sure = torch.tensor([[50.0, 0.0, 0.0, 0.0]]).repeat(8, 1)
    assert load_balancing_loss(sure, torch.tensor([8, 0, 0, 0]), 1).item() == pytest.approx(4.0)  # E, at the worst
    assert router_z_loss(even).item() == pytest.approx(math.log(4) ** 2)


def test_parts_of_a_batch_have_the_loss_of_the_whole() -> None:
    """With counts of the whole, the mean of the parts' losses, and of their gradients, is that of the whole."""
    logits = random(24, 6).requires_grad_()
    counts = expert_counts(route(logits, 2, normalize=False)[1], 6)
    whole = load_balancing_loss(logits, counts, 2)
    parts = torch.stack([load_balancing_loss(part, counts, 2) for part in logits.chunk(3)]).mean()
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, logits), torch.autograd.grad(whole, logits))


def test_weights_of_the_chosen() -> None:
    logits = random(30, 6)
    probabilities = logits.softmax(-1)
    weights, chosen = route(logits, 3, normalize=False)
    assert torch.equal(weights, probabilities.gather(1, chosen))
    assert torch.equal(weights.sort(dim=-1, descending=True).values, weights)
    normalized, same = route(logits, 3, normalize=True)
    assert torch.equal(same, chosen)
    torch.testing.assert_close(normalized.sum(-1), torch.ones(30, dtype=torch.float64))
    biased, others = route(logits, 3, normalize=False, bias=torch.tensor([0.0, 0, 0, 0, 0, 9.0]))
    assert (others[:, 0] == 5).all(), "the bias decides who is chosen"
    torch.testing.assert_close(biased, probabilities.gather(1, others))  # and not with what weight


def test_a_bias_evens_loads_out() -> None:
    """A router that prefers some experts by far, with no loss at all."""
    logits = 0.3 * random(512, 8) + torch.linspace(0, 2, 8)
    bias = torch.zeros(8)
    figures = []
    for _ in range(300):
        counts = expert_counts(route(logits, 2, normalize=True, bias=bias)[1], 8)
        figures.append(load_figures(counts[None])["experts/largest_over_mean"].item())
        bias = balanced_bias(bias, counts, 0.002)
    assert figures[0] > 2.5
    assert figures[-1] < 1.2
    assert torch.equal(balanced_bias(torch.zeros(3), torch.tensor([1, 2, 3]), 0.5), torch.tensor([0.5, 0.0, -0.5]))


def test_figures_of_the_load() -> None:
    figures = load_figures(torch.tensor([[5, 5, 5, 5], [10, 10, 0, 0]]))
    assert figures["experts/layer_0/entropy"] == 1.0
    assert figures["experts/layer_1/entropy"].item() == pytest.approx(0.5)
    assert (figures["experts/layer_0/largest_over_mean"], figures["experts/largest_over_mean"]) == (1.0, 2.0)
    assert [figures[f"experts/layer_1/share_{expert}"] for expert in range(4)] == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("counts", [[7, 0, 5, 1], [0, 0, 13, 0], [4, 3, 3, 3]])
@pytest.mark.parametrize("fused", [True, False])
def test_grouped_products_are_those_of_each_expert(
    counts: list[int], fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts_module, "use_fused_backward", lambda values: fused)
    tensors = [random(*shape, seed=seed).float().requires_grad_() for seed, shape in
               enumerate([(13, 8), (4, 12, 8), (4, 12, 8), (4, 8, 12)])]  # fmt: skip
    results = []
    for function in (through_experts, grouped):
        given = function(*tensors, torch.tensor(counts))
        results.append([given, *torch.autograd.grad(given.square().sum(), tensors)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.cuda
def test_grouped_products_on_a_device() -> None:
    config = MixtureOfExpertsConfig(64, 64, 2, 4, intermediate_size=32, num_experts=8)
    model = LanguageModel(config)
    tokens = torch.randint(64, (4, 32))
    expected = model(tokens)
    expected.square().mean().backward()
    gradient = mixtures_of(model)[0].gate.weight.grad.clone()
    model.zero_grad()
    model.cuda()
    with torch.autocast("cuda", torch.bfloat16):
        given = model(tokens.cuda())
    given.float().square().mean().backward()
    torch.testing.assert_close(given.float().cpu(), expected, rtol=0.05, atol=0.01)
    torch.testing.assert_close(mixtures_of(model)[0].gate.weight.grad.cpu(), gradient, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("name", ["moe", "moe_shared"])
def test_gradients_are_those_of_a_sum_over_all_experts(name: str) -> None:
    """The layer, and every expert on every token with weights that are zero for those not chosen."""
    model = lively(VARIANTS[name])
    layer = mixtures_of(model)[0]
    hidden = random(3, 5, 12).requires_grad_()

    def plainly(rows: Tensor) -> Tensor:
        weights, chosen = route(layer.router(rows), layer.top_k, normalize=layer.normalize, bias=layer.router_bias)
        all_weights = torch.zeros(*rows.shape[:-1], model.config.num_experts, dtype=rows.dtype)
        all_weights = all_weights.scatter(-1, chosen, weights)
        inner = torch.nn.functional.silu(torch.einsum("btd,efd->btef", rows, layer.gate.weight))
        inner = inner * torch.einsum("btd,efd->btef", rows, layer.up.weight)
        given = torch.einsum("btef,edf,bte->btd", inner, layer.down.weight, all_weights)
        return given if layer.shared is None else given + layer.shared(rows)

    results = []
    for function in (layer, plainly):
        given = function(hidden)
        results.append([given, *torch.autograd.grad(given.square().sum(), [hidden, *layer.parameters()])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_experts_and_k_as_many_are_one_wide_dense_layer() -> None:
    config = dataclasses.replace(VARIANTS["moe"], num_experts=3, num_experts_per_tok=3)
    layer = mixtures_of(lively(config))[0]
    with torch.no_grad():
        layer.router.weight.zero_()
    hidden = random(2, 4, 12)
    dense = torch.nn.functional.silu(hidden @ layer.gate.weight.flatten(0, 1).T) * (
        hidden @ layer.up.weight.flatten(0, 1).T
    )
    torch.testing.assert_close(layer(hidden), dense @ layer.down.weight.transpose(1, 2).flatten(0, 1) / 3)


def test_active_and_idle_parameters_are_counted_apart() -> None:
    config = MixtureOfExpertsConfig(1000, 64, 3, 4, intermediate_size=48, num_experts=8, n_shared_experts=1)
    expert, router, attention, norms = 3 * 64 * 48, 64 * 8, 4 * 64 * 64, 2 * 64
    count = count_parameters(config)
    assert count.core == 3 * (3 * expert + router + attention + norms) + 64
    assert count.inactive == 3 * 6 * expert
    assert count.total == sum(parameter.numel() for parameter in LanguageModel(config).parameters())
    assert count.active == count.total - count.inactive
    more = dataclasses.replace(config, num_experts=16)
    extra = training_flops(more, 100, 50).total - training_flops(config, 100, 50).total
    assert extra == 6 * 100 * 3 * 8 * 64, "more experts cost what the router costs"


def test_where_tokens_went_is_seen_within_a_block_alone() -> None:
    model = lively(VARIANTS["moe"])
    with recorded(mixtures_of(model)) as seen:
        model(some_tokens(2, 9))
    assert [len(layer) for layer in seen] == [1, 1]
    assert all(layer[0].counts.sum() == 2 * 9 * 2 and layer[0].logits.shape == (18, 5) for layer in seen)
    model(some_tokens(2, 9))
    assert all(layer.routed is None for layer in mixtures_of(model))


def test_one_seed_gives_a_start_to_each_expert() -> None:
    state = LanguageModel(VARIANTS["moe"], seed=1).state_dict()
    stack = state["core.layers.0.feed_forward.down.weight"]
    assert len({matrix[0, 0].item() for matrix in stack}) == 5
    wide = dataclasses.replace(VARIANTS["moe"], hidden_size=128, intermediate_size=256)
    down = LanguageModel(wide).state_dict()["core.layers.1.feed_forward.down.weight"]
    assert down.std().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.03)


def test_mup_treats_the_router_as_a_head_and_experts_as_hidden() -> None:
    mup, model = Parametrization("mup", base_hidden_size=6), LanguageModel(VARIANTS["moe"])
    layer = "core.layers.0.feed_forward."
    assert mup.deviation_factor("layers.0.feed_forward.router.weight", model.config) == pytest.approx(1 / 2)
    assert mup.deviation_factor("layers.0.feed_forward.up.weight", model.config) == pytest.approx(1 / math.sqrt(2))
    assert {mup.rate_factor(f"{layer}{name}.weight", model) for name in ("router", "gate", "down")} == {1 / 2}


def test_a_scalar_model_takes_the_core_with_its_biases() -> None:
    model = lively(VARIANTS["moe_shared"])
    scalar = ScalarModel.from_language_model(model)
    ours, theirs = mixtures_of(scalar), mixtures_of(model)
    assert all(torch.equal(a.router_bias, b.router_bias) for a, b in zip(ours, theirs, strict=True))
    assert isinstance(ours[0], MixtureOfExperts)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok=6 of num_experts=5"),
        ({"num_experts": 0}, "num_experts=0"),
        ({"activation": "gelu"}, "activation=gelu"),
        ({"bias": True}, "bias=true"),
        ({"router_aux_loss_coef": -1.0}, "router_aux_loss_coef=-1.0"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        dataclasses.replace(VARIANTS["moe"], **changes)


def test_lora_goes_on_attention_and_names_experts_in_its_refusal() -> None:
    pytest.importorskip("peft")
    model, node = LanguageModel(VARIANTS["moe"]), {"_target_": "peft.LoraConfig", "r": 2}
    with pytest.raises(ConfigError, match="gate, whose matrices are a stack"):
        attach(model, node | {"target_modules": ["query", "gate"]})
    with pytest.raises(ConfigError, match="target_parameters"):
        attach(model, node | {"target_parameters": ["gate.weight"]})
    attach(model, node)
    assert {name.rpartition(".")[2] for name in adapted(model)} == {"query", "key", "value", "output"}
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == adapter_parameters(model.config, node)


@pytest.mark.parametrize("size", [30_000, 300_000, 10_000_000])
@pytest.mark.parametrize("shared", [0, 1])
def test_a_size_is_one_of_active_parameters(size: int, shared: int) -> None:
    """A sparse model of a size costs what the dense one does, and is as wide and deep; its experts come on top."""
    dense, sparse = (
        resolve(size=size, tokens=1e6, vocab_size=1000, sequence_length=64, model=model)
        for model in (ModelConfig(token_shift=False),
                      ModelConfig(kind="moe", token_shift=False, num_experts=16, n_shared_experts=shared))
    )  # fmt: skip
    assert sparse.architecture.hidden_size == dense.architecture.hidden_size
    assert sparse.architecture.num_hidden_layers == dense.architecture.num_hidden_layers
    assert sparse.size == pytest.approx(dense.size, rel=0.06)
    assert sparse.compute == pytest.approx(dense.compute, rel=0.06)
    assert sparse.parameters.inactive > 0.5 * sparse.parameters.core


def test_settings_of_experts_need_a_model_that_has_some() -> None:
    with pytest.raises(ConfigError, match=r"model\.num_experts means nothing to a dense model"):
        ModelConfig(num_experts=4).validate()
    ModelConfig(kind="moe", num_experts=4).validate()
