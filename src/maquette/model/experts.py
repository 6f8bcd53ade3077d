"""A mixture of experts in place of a transformer's feed-forward: every token goes through a few of many.

No token is dropped and no expert has a capacity: pairs of a token and one of its experts are sorted by expert, so that
each expert reads its tokens in a row. On an accelerator one grouped product serves all experts
(`torch.nn.functional.grouped_mm`); on a CPU a loop over them, with the backward pass of fused.py, is three times
faster, and is the reference that the tests hold the other to. Neither adds up gradients by scattering, so both are
deterministic.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maquette.model.architecture import MixtureOfExpertsConfig
from maquette.model.expert_parallel import Exchange
from maquette.model.fused import SwiGLU, use_fused_backward
from maquette.model.linear import Linear, linear
from maquette.model.routing import expert_counts, route
from maquette.model.tensor_parallel import enter, leave, own


class StackedLinear(nn.Module):
    """A matrix for each expert: `weight (E, outputs, inputs)`. It is multiplied by `through_experts`."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))


@dataclass(frozen=True)
class Routed:
    """Where one layer sent the tokens of a forward pass: the router's `logits (N, E)`, and `counts (E,)`."""

    logits: Tensor
    counts: Tensor


class MixtureOfExperts(nn.Module):
    """`hidden (..., D) -> (..., D)`: the sum of a token's experts, SwiGLU each, as the router weighs them, and of
    `shared`, which every token goes through.

    `router_bias (E,)` is a buffer, where the configuration asks for balance by a bias: `routing.balanced_bias` is what
    moves it. While `routed` is a list, every forward pass adds where it sent its tokens.
    """

    def __init__(self, config: MixtureOfExpertsConfig, shared: nn.Module | None = None) -> None:
        super().__init__()
        experts, width, inner = config.num_experts, config.hidden_size, config.inner_width
        self.top_k, self.normalize = config.num_experts_per_tok, config.norm_topk_prob
        self.router = Linear(width, experts, bias=False)
        self.gate = StackedLinear(experts, width, inner)
        self.up = StackedLinear(experts, width, inner)
        self.down = StackedLinear(experts, inner, width)
        self.shared = shared
        self.router_bias: Tensor | None
        self.register_buffer("router_bias", torch.zeros(experts) if config.router_bias_update_rate else None)
        self.routed: list[Routed] | None = None

    @torch.compiler.disable  # how many tokens an expert gets is known only when it computes
    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, -2)
        logits = self.router_logits(rows)
        weights, chosen = route(logits, self.top_k, normalize=self.normalize, bias=self.router_bias)
        counts = expert_counts(chosen, logits.size(-1))
        if self.routed is not None:
            self.routed.append(Routed(logits, counts))
        order = chosen.flatten().argsort(stable=True)  # pairs (token, one of its k), by expert
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        sent = _Sent.apply(enter(rows, self.gate.weight), order, back, self.top_k)
        exchange = Exchange.of(self.gate.weight, counts)
        matrices = self.gate.weight, self.up.weight, self.down.weight
        if exchange is None:
            gate, up, down = map(own, matrices)
            given = through_experts(sent, gate, up, down, counts)
        else:
            gate, up, down = (exchange.part(matrix, sent.dtype) for matrix in matrices)
            given = through_experts(exchange.to_experts(sent), gate, up, down, exchange.counts)
            given = exchange.from_experts(given)
        given = _Returned.apply(given, order, back).unflatten(0, (-1, self.top_k))
        weights = enter(weights.to(given.dtype), self.gate.weight)
        mixed = leave((given * weights[..., None]).sum(dim=1), self.down.weight).view_as(hidden)
        return mixed if self.shared is None else mixed + self.shared(hidden)

    def router_logits(self, rows: Tensor) -> Tensor:
        """`rows (N, D)` -> `(N, E)` in float32 at least: a choice is not to hang on rounding (Fedus et al. 2022,
        section 2.4, "Selective precision")."""
        exact = torch.promote_types(rows.dtype, torch.float32)
        with torch.autocast(rows.device.type, enabled=False):
            return linear(rows.to(exact), self.router.weight.to(exact))


def through_experts(rows: Tensor, gate: Tensor, up: Tensor, down: Tensor, counts: Tensor) -> Tensor:
    """The experts' feed-forwards: `rows (P, D)`, first those of expert 0, `counts (E,)` of each -> `(P, D)`.

    `gate`, `up` `(E, F, D)` and `down (E, D, F)`.
    """
    if rows.device.type == "cpu" or not _has_values(counts):
        return _one_by_one(rows, gate, up, down, counts)
    return grouped(rows, gate, up, down, counts)


def grouped(rows: Tensor, gate: Tensor, up: Tensor, down: Tensor, counts: Tensor) -> Tensor:
    """`through_experts` by grouped products, which need no look at `counts` from the host."""
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
    rows, gate, up, down = (tensor.to(dtype) for tensor in (rows, gate, up, down))
    ends = counts.cumsum(0).to(torch.int32)
    inner = F.silu(F.grouped_mm(rows, gate.transpose(1, 2), offs=ends))
    return F.grouped_mm(inner * F.grouped_mm(rows, up.transpose(1, 2), offs=ends), down.transpose(1, 2), offs=ends)


def _one_by_one(rows: Tensor, gate: Tensor, up: Tensor, down: Tensor, counts: Tensor) -> Tensor:
    if not len(rows):  # other processes' experts have them all: gradients of zero
        return ((rows @ gate[0].t()) * (rows @ up[0].t())) @ down[0].t()
    fused = use_fused_backward(rows)
    parts = rows.split(counts.tolist()) if _has_values(counts) else rows.tensor_split(len(gate))
    given = []
    # unbind's backward writes all experts' gradients at once; an index would add up E tensors of all of them.
    for part, *matrices in zip(parts, gate.unbind(), up.unbind(), down.unbind(), strict=True):
        if len(part):
            given.append(SwiGLU.apply(part, *matrices) if fused else _swiglu(part, *matrices))
    return torch.cat(given)


def _has_values(counts: Tensor) -> bool:
    """Not where memory is predicted, with tensors that have shapes alone."""
    return type(counts) is Tensor and not counts.is_meta


def _swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return linear(F.silu(linear(x, gate)) * linear(x, up), down)


class _Sent(torch.autograd.Function):
    """`rows (N, D)` -> `(N k, D)`: every row k times, in the order of the pairs. `back` undoes `order`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.top_k = top_k
        return rows.index_select(0, order // top_k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back).unflatten(0, (-1, ctx.top_k)).sum(dim=1), None, None, None


class _Returned(torch.autograd.Function):
    """`rows (N k, D)` in the order of the pairs -> in that of tokens."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows.index_select(0, back)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return grad.index_select(0, order), None, None


def mixtures_of(model: nn.Module) -> list[MixtureOfExperts]:
    """A model's mixtures, in the order of its layers; none of a dense one."""
    return [module for module in model.modules() if isinstance(module, MixtureOfExperts)]


@contextlib.contextmanager
def recorded(mixtures: Sequence[MixtureOfExperts]) -> Iterator[list[list[Routed]]]:
    """Within the block, where each of them sends its tokens: a list for each, of its forward passes."""
    lists: list[list[Routed]] = [[] for _ in mixtures]
    for mixture, routed in zip(mixtures, lists, strict=True):
        mixture.routed = routed
    try:
        yield lists
    finally:
        for mixture in mixtures:
            mixture.routed = None
