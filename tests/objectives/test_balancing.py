"""Experts in pretraining: what is minimised, what is logged, how the bias moves, and that processes agree."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.data import TokenBatch
from maquette.model import MixtureOfExpertsConfig
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.model.experts import mixtures_of, recorded
from maquette.model.routing import balanced_bias, load_balancing_loss, router_z_loss
from maquette.training.processes import launch
from objectives.test_pretrain import batch, fit, gradients, objective
from support.process_work import train_experts

SPARSE = MixtureOfExpertsConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=32, num_experts=4, router_aux_loss_coef=0.1, router_z_loss_coef=0.02,
    router_bias_update_rate=0.05,
)  # fmt: skip


def test_the_router_s_losses_are_added_and_shown_apart() -> None:
    module, data = objective(SPARSE), batch()
    with recorded(mixtures_of(module.model)) as seen:
        cross_entropy, _ = module.loss(data)
    layers = [layer[0] for layer in seen]
    balance = sum(load_balancing_loss(layer.logits, layer.counts, 2) for layer in layers) / 2
    normalizer = sum(router_z_loss(layer.logits) for layer in layers) / 2
    total = module.training_step(data, 0)
    torch.testing.assert_close(total, cross_entropy + 0.1 * balance + 0.02 * normalizer)
    shown, metrics = module._seen[-1]
    assert torch.equal(shown, cross_entropy)
    torch.testing.assert_close(metrics["train/load_balancing_loss"], balance)
    torch.testing.assert_close(metrics["train/router_z_loss"], normalizer)


def test_loads_are_figured_at_log_steps_and_the_bias_moves_every_step() -> None:
    module = objective(SPARSE)
    rows = fit(module, [batch(seed=seed) for seed in range(5)], every=2)
    assert [sorted(row) for row in rows] == [sorted(rows[0])] * 3  # steps 2 and 4, and the last
    shares = [rows[1][f"experts/layer_1/share_{expert}"] for expert in range(4)]
    assert sum(shares) == pytest.approx(1.0)
    assert rows[1]["experts/layer_1/largest_over_mean"] == pytest.approx(4 * max(shares))
    assert rows[1]["experts/largest_over_mean"] >= rows[1]["experts/layer_1/largest_over_mean"]
    for layer in mixtures_of(module.model):
        steps = layer.router_bias / 0.05
        torch.testing.assert_close(steps, steps.round())
        assert 0 < steps.abs().max() <= 5


def test_the_bias_moves_once_by_all_micro_batches() -> None:
    whole = objective(SPARSE)
    with recorded(mixtures_of(whole.model)) as seen, torch.no_grad():
        whole.model(batch().inputs)
    parts = objective(SPARSE)
    micro_batches = [TokenBatch(tokens, torch.zeros(2, dtype=torch.int64)) for tokens in batch().tokens.chunk(4)]
    fit(parts, micro_batches, accumulate=4)
    for layer, routed in zip(mixtures_of(parts.model), seen, strict=True):
        assert torch.equal(layer.router_bias, balanced_bias(torch.zeros(4), routed[0].counts, 0.05))


def test_two_runs_are_equal_to_the_bit_and_a_dense_model_has_none_of_it() -> None:
    runs = []
    for _ in range(2):
        module = objective(SPARSE)
        rows: Any = fit(module, [batch(seed=seed) for seed in range(3)])
        runs.append((rows, module.model.state_dict()))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(value, runs[1][1][name]) for name, value in runs[0][1].items())
    [*_, dense] = fit(objective(), [batch()])
    assert not [name for name in dense if "experts" in name or "router" in name]


@pytest.mark.parametrize("kind", ["block", "selective"])
def test_what_is_computed_again_is_not_counted_again(kind: str) -> None:
    results = []
    for checkpointing in ("none", kind):
        module = objective(SPARSE)
        checkpoint_blocks(module.model.core.layers, checkpointing)
        loss = module.training_step(batch(), 0)
        loss.backward()
        results.append([loss.detach(), *gradients(module).values(), module._balance.loads])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two processes that train")
def test_two_processes_balance_as_one(tmp_path: Path) -> None:
    """The loads are those of the global batch: with DDP losses and gradient norms are those of one process."""
    alone, shared = train_experts(str(tmp_path)), launch(train_experts, str(tmp_path), 2)
    assert len(alone) == 19
    for one, two in zip(alone, shared, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
