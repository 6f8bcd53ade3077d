"""Steps of a layer with a backward pass written by hand, for eager training on a CPU.

There a small model spends a third of its time on memory traffic between products, not on the products: PyTorch's own
formulas write every intermediate result, and sum gradients in passes of their own. Each class here gives the numbers
of the plain formula beside it in `transformer.py`, with fewer passes. The compiler fuses for itself, and accelerators
have kernels of their own, so both are given the plain formulas: `use_fused_backward` decides.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from maquette.model.linear import input_gradient, linear, matmul, weight_gradient

_plain = False


@contextlib.contextmanager
def plain_formulas() -> Iterator[None]:
    """Within the block a CPU computes as an accelerator does: what that would keep in memory is counted so."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def use_fused_backward(values: Tensor) -> bool:
    """Whether this is eager training on a CPU, in full precision."""
    return (
        not _plain
        and values.device.type == "cpu"
        and values.dtype in (torch.float32, torch.float64)
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


class RootMeanSquareNorm(torch.autograd.Function):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension of `x (..., D)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = x.flatten(0, -2)
        scale = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).square_().div_(rows.size(-1)).add_(eps).rsqrt_()
        ctx.save_for_backward(rows, weight, scale)
        return torch.mul(rows, scale).mul_(weight).view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight, scale = ctx.saved_tensors
        grad_rows = grad.reshape(rows.shape)
        # LayerNorm's kernel does it in one pass, taken with a mean of zero. Its result lacks what the gradient of the
        # mean would have added to each row: scale * mean(grad * weight).
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad_rows, rows, [rows.size(-1)], torch.zeros_like(scale), scale, weight, None, [True, True, False]
        )
        grad_x.add_(torch.mv(grad_rows, weight).div_(rows.size(-1)).unsqueeze_(1).mul_(scale))
        return grad_x.view_as(grad), grad_weight, None


def rotated_heads(
    hidden: Tensor, query: Tensor, key: Tensor, value: Tensor, rotation: tuple[Tensor, Tensor], width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `(B, T, heads, width)` of `hidden (B, T, D)` by one product instead of three, the first
    two turned by their positions in one pass.

    The rows of the query and key matrices are taken in another order, so that the channels i and i + W/2, which turn
    together, stand side by side as one complex number. Query and key change alike, so their dot products do not.
    """
    joined = linear(hidden, torch.cat([_side_by_side(query, width), _side_by_side(key, width), value]))
    heads, key_value_heads = query.size(0) // width, key.size(0) // width
    turns = torch.complex(*rotation)  # (T or B x T, 1, W / 2)
    turns = turns.expand(*turns.shape[:-2], heads + key_value_heads, -1).flatten(-2)
    return _Rotated.apply(joined, turns, heads, width)


class _Rotated(torch.autograd.Function):
    """`joined (B, T, (H + 2 K) W)`, `turns (T or B x T, (H + K) W / 2)` complex -> `(B, T, H, W)` and two of K heads.

    The gradients of all three are written into one tensor.
    """

    @staticmethod
    def forward(ctx: Any, joined: Tensor, turns: Tensor, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(turns)
        turned = 2 * turns.size(-1)
        rotated = joined.new_empty(*joined.shape[:2], turned)
        torch.mul(_as_pairs(joined[..., :turned]), turns, out=_as_pairs(rotated))
        rotated, value = rotated.unflatten(-1, (-1, width)), joined[..., turned:].unflatten(-1, (-1, width))
        return rotated[:, :, :heads], rotated[:, :, heads:], value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor | None, ...]:
        (turns,) = ctx.saved_tensors
        grads = [grad.flatten(2).contiguous() for grad in (query, key, value)]
        sizes = [grad.size(-1) for grad in grads]
        joined = query.new_empty(*query.shape[:2], sum(sizes))
        queries, keys, values = joined.split(sizes, dim=-1)
        for_queries, for_keys = turns.conj().resolve_conj().split([sizes[0] // 2, sizes[1] // 2], dim=-1)
        torch.mul(_as_pairs(grads[0]), for_queries, out=_as_pairs(queries))
        torch.mul(_as_pairs(grads[1]), for_keys, out=_as_pairs(keys))
        values.copy_(grads[2])
        return joined, None, None, None


def _as_pairs(channels: Tensor) -> Tensor:
    """`(..., n)` real -> the same memory as `(..., n / 2)` complex."""
    return torch.view_as_complex(channels.unflatten(-1, (-1, 2)))


def _side_by_side(weight: Tensor, width: int) -> Tensor:
    """The rows of `weight (heads x W, D)` in such order that the pairs (i, i + W/2) of each head are neighbours."""
    return weight.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)


class SwiGLU(torch.autograd.Function):
    """`silu(x gate^T) * (x up^T)`, times `down^T`: the whole feed-forward of `x (..., D)` without biases."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        rows = x.flatten(0, -2)
        gates, ups = matmul(rows, gate), matmul(rows, up)
        ctx.save_for_backward(rows, gate, up, down, gates, ups)
        return matmul(F.silu(gates).mul_(ups), down).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, gate, up, down, gates, ups = ctx.saved_tensors
        grad_rows = grad.flatten(0, -2)
        opened = F.silu(gates)
        grad_inner = input_gradient(grad_rows, down)
        inner = opened * ups
        grad_down = weight_gradient(grad_rows, inner)
        grad_ups = opened.mul_(grad_inner)
        grad_opened = torch.mul(grad_inner, ups, out=inner)
        grad_gates = torch.ops.aten.silu_backward.grad_input(grad_opened, gates, grad_input=grad_inner)
        grad_x = input_gradient(grad_gates, gate, onto=input_gradient(grad_ups, up))
        grad_gate, grad_up = weight_gradient(grad_gates, rows), weight_gradient(grad_ups, rows)
        return grad_x.view(*grad.shape[:-1], -1), grad_gate, grad_up, grad_down
