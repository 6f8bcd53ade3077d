"""The ways of a demonstration compute the same, and cost what theory says of their operators, bytes and memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from maquette.model import TransformerConfig
from maquette.training.demonstrations import (
    FUSED,
    MATERIALISED,
    PRECISIONS,
    TILED,
    UNFUSED,
    Cost,
    fused_and_unfused,
    fusion_ways,
    materialised_attention,
    tiled_and_materialised,
    tiled_attention,
    training_by_precision,
)
from maquette.training.report import draw_precisions

TINY = TransformerConfig(
    64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=16
)


def test_fused_and_unfused_compute_the_same() -> None:
    for name, (ways, inputs) in fusion_ways(TINY, 2, 16).items():
        results = []
        for way in (ways[UNFUSED], ways[FUSED]):
            result = way(*inputs)
            (gradient,) = torch.autograd.grad(result, inputs, torch.ones_like(result))
            results.append((result, gradient))
        for plain, fused in zip(*results, strict=True):
            torch.testing.assert_close(plain, fused, msg=name)


def test_fusion_calls_fewer_operators_and_moves_fewer_bytes() -> None:
    costs = fused_and_unfused(TINY, batch=2, length=16, rounds=2)
    for name in ("GELU", "softmax", "RMSNorm", "SwiGLU"):
        plain, fused = costs[name][UNFUSED], costs[name][FUSED]
        assert fused.calls < plain.calls and len(fused.seconds) == 2 and fused.median > 0
    assert all(costs[name][FUSED].bytes < costs[name][UNFUSED].bytes for name in ("GELU", "softmax", "RMSNorm"))


def test_tiled_attention_is_attention_in_linear_memory() -> None:
    numbers = torch.Generator().manual_seed(0)
    parts = torch.randn(3, 2, 2, 33, 8, generator=numbers).unbind()
    torch.testing.assert_close(tiled_attention(*parts), materialised_attention(*parts))
    costs = tiled_and_materialised([128, 256, 512], heads=2, head_dim=8, rounds=1)
    whole, tiled = ([costs[length][way].peak for length in costs] for way in (MATERIALISED, TILED))
    assert whole[2] / whole[1] == pytest.approx(4, rel=0.1)  # scores are length x length
    assert tiled[2] / tiled[1] == pytest.approx(2, rel=0.1) and tiled[0] < whole[0]


def test_number_formats_learn_the_same_and_hold_less() -> None:
    numbers = torch.Generator().manual_seed(0)
    batches = [torch.randint(8, (4, 17), generator=numbers) for _ in range(12)]  # eight of 64 tokens: quickly learnt
    results = training_by_precision(TINY, batches, learning_rate=1e-2)
    assert list(results) == list(PRECISIONS)
    single, mixed, half = (results[name] for name in PRECISIONS)
    assert single.losses[-1] < single.losses[0] - 0.5
    for other in (mixed, half):
        assert other.losses != single.losses and other.losses[-1] == pytest.approx(single.losses[-1], abs=0.2)
        assert other.losses[0] == pytest.approx(single.losses[0], abs=0.05)  # the same weights
        assert len(other.seconds) == len(batches)
    for part in ("weights", "optimiser states"):
        assert mixed.memory[part] == single.memory[part] == 2 * half.memory[part] > 0
    assert half.memory["activations"] < single.memory["activations"]


def test_runs_in_several_number_formats_are_drawn(tmp_path: Path) -> None:
    records: list[Any] = [
        SimpleNamespace(spec=SimpleNamespace(precision=name, size=size), validation_loss=loss, tokens_per_second=speed)
        for name, size, loss, speed in (
            ("fp32", 9000, 3.1, 5e4),
            ("bf16-true", 9000, 3.2, 7e4),
            ("fp32", 2e4, 3.0, 2e4),
        )
    ]
    assert draw_precisions(records, tmp_path / "precision").stat().st_size > 5000


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    quick, slow = Cost((1.0, 2.0, 1.0), 1, 1, 1), Cost((3.0, 8.0, 2.0), 1, 1, 1)
    assert quick.ratio(slow) == (3.0, 2.0, 4.0)
