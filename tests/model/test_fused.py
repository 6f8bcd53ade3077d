"""What is written by hand for the CPU gives the plain formulas' numbers, forward and backward."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.model import next_token_loss
from maquette.model import transformer as transformer_module
from maquette.model.fused import RootMeanSquareNorm, SwiGLU, rotated_heads, use_fused_backward
from maquette.model.rotary import rotary_table, rotate
from support.model_variants import VARIANTS, lively, some_tokens


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


def same(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Values, gradients and the numeric derivative agree."""
    first, second = ours(*inputs), plain(*inputs)
    assert torch.allclose(first, second, atol=1e-12)
    grad = torch.randn(first.shape, dtype=first.dtype)
    pairs = zip(torch.autograd.grad(first, inputs, grad), torch.autograd.grad(second, inputs, grad), strict=True)
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in pairs)
    assert torch.autograd.gradcheck(ours, inputs)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 6), (2, 3, 4, 2)])
def test_norm(shape: tuple[int, ...]) -> None:
    same(
        lambda x, weight: RootMeanSquareNorm.apply(x, weight, 1e-3),
        lambda x, weight: F.rms_norm(x, x.shape[-1:], weight, 1e-3),
        random(2, *shape),
        random(shape[-1]),
    )


def test_feed_forward() -> None:
    same(
        SwiGLU.apply,
        lambda x, gate, up, down: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down),
        *(random(2, 3, 4), random(6, 4), random(6, 4), random(4, 6).detach().add(1).requires_grad_()),
    )


@pytest.mark.parametrize("positions", [torch.arange(3), torch.tensor([[0, 1, 2], [4, 0, 9]])])
def test_rotated_heads(positions: Tensor) -> None:
    """Dot products of queries and keys, and the values: the channels themselves stand in another order."""
    rotation = rotary_table(positions, 4, 10_000.0, torch.float64)

    def scores_and_values(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = key.repeat_interleave(2, dim=2), value.repeat_interleave(2, dim=2)
        return torch.einsum("bthw,bshw,bshv->bthv", query, key, value)

    def ours(hidden: Tensor, *weights: Tensor) -> Tensor:
        return scores_and_values(*rotated_heads(hidden, *weights, rotation, 4))

    def plain(hidden: Tensor, *weights: Tensor) -> Tensor:
        query, key, value = (F.linear(hidden, weight).unflatten(-1, (-1, 4)) for weight in weights)
        return scores_and_values(rotate(query, rotation), rotate(key, rotation), value)

    same(ours, plain, random(2, 3, 5), random(16, 5), random(8, 5), random(8, 5).detach().mul(2).requires_grad_())


@pytest.mark.parametrize("name", ["llama", "grouped", "multi_query", "wide_heads", "qwen3", "token_shift", "layernorm"])
def test_the_whole_model_by_hand_and_plainly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = lively(VARIANTS[name]), some_tokens(3, 9)

    def gradients() -> list[Tensor]:
        loss, _ = next_token_loss(model.core(tokens[:, :-1]), model.head_weight, tokens[:, 1:])
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    ours = gradients()
    monkeypatch.setattr(transformer_module, "use_fused_backward", lambda values: False)
    for a, b in zip(ours, gradients(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-11)


def test_where_it_is_used() -> None:
    values = torch.zeros(2)
    assert use_fused_backward(values)
    assert not use_fused_backward(values.bfloat16())
    with torch.no_grad():
        assert not use_fused_backward(values)
    with torch.autocast("cpu", torch.bfloat16):
        assert not use_fused_backward(values)
    assert not use_fused_backward(torch.zeros(2, device="meta"))
