"""Tensor parallelism: each matrix cut up over a group of processes that all read the same batch.

    query, key, value; gate, up     by rows: a process has some of the heads, some of the inner channels
    output; down                    by columns, so that its products are summands of the whole one
    embedding, head                 by the tokens of the vocabulary, where their number can be divided

Attention and feed-forward cost one sum over the group each, and another in the backward pass; a loss needs the largest
logit, the normaliser and the target's logit of each token (Shoeybi et al. 2019, "Megatron-LM", section 3). Everything
else (norms, routers, token shift) is computed by each process alike.

A weight that is cut up is a DTensor, and that alone says so: a layer whose weight is whole computes by itself, as it
does when one process samples (sharding.whole). Products are of plain tensors. PyTorch's `parallelize_module` cuts up
the same way, but by hooks around layers: the layers of fused.py and the losses, which read weights themselves, would
go past them.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maquette.artifacts import ConfigError
from maquette.model.architecture import TransformerConfig
from maquette.model.core_config import CoreConfig

_ROWS = frozenset(("query", "key", "value", "gate", "up"))
_COLUMNS = frozenset(("output", "down"))
_VOCABULARY = ("embedding.weight", "head.weight")


def check_tensor_parallel(config: CoreConfig, size: int) -> None:
    """Raises `ConfigError` where a model can't be cut up over so many processes."""
    if not isinstance(config, TransformerConfig) or config.own_code:
        kind = f"a user's {config.own_code[0]}" if getattr(config, "own_code", None) else f"model={config.kind}"
        raise ConfigError(
            f"tensor_parallel_size={size} is for transformers of this project's own parts, not for {kind}.",
            "Leave it out: trainer=fsdp shares the weights out whatever the model is.",
        )
    for number, what in (
        (config.num_attention_heads, "attention heads"), (config.key_value_heads, "key-value heads"),
        (config.inner_width, "inner channels (model.intermediate_size)"),
    ):  # fmt: skip
        if number % size:
            allowed = [one for one in range(1, number + 1) if number % one == 0]
            raise ConfigError(
                f"tensor_parallel_size={size} does not divide the model's {number:,} {what}.",
                f"Allowed for them: {', '.join(map(str, allowed[:12]))}.",
            )


def cut_dimension(name: str, parameter: Tensor, size: int) -> int | None:
    """By which dimension a parameter of that name is cut up over `size` processes; None for those that are not."""
    *path, layer, kind = ["", "", *name.split(".")]
    if name.endswith(_VOCABULARY):
        return 0 if parameter.size(0) % size == 0 else None
    if "layers" not in path:
        return None
    if layer in _ROWS:
        return parameter.ndim - (2 if kind == "weight" else 1)
    return parameter.ndim - 1 if layer in _COLUMNS and kind == "weight" else None


# What layers do with their weights ------------------------------------------------------------------------------------


def group_of(weight: Any) -> Any:
    """The processes that a weight is cut up over; None where it is whole."""
    if type(weight) is nn.Parameter or not hasattr(weight, "device_mesh"):
        return None
    return weight.device_mesh.get_group("tensor") if weight.device_mesh.mesh_dim_names == ("tensor",) else None


def own(weight: Any) -> Tensor:
    """This process's part of a weight, which is all of one that is whole; the gradient of the part is the weight's."""
    part: Tensor = weight if group_of(weight) is None else weight.to_local()
    return part


def enter(values: Tensor, weight: Any) -> Tensor:
    """What is the same in every process, before each uses it with its part of `weight`: gradients are summed up."""
    group = group_of(weight)
    return values if group is None else _Entered.apply(values, group)


def leave(values: Tensor, weight: Any) -> Tensor:
    """The sum over processes of what each has made with its part of `weight`."""
    group = group_of(weight)
    return values if group is None else _Left.apply(values, group)


def _sum(values: Tensor, group: Any) -> Tensor:
    total = values.contiguous().clone()
    dist.all_reduce(total, group=group)
    return total


class _Entered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _sum(grad, ctx.group), None


class _Left(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        return _sum(values, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


# The vocabulary -------------------------------------------------------------------------------------------------------


class Embedding(nn.Embedding):
    """`nn.Embedding`, of whose rows a process may have some."""

    def forward(self, input: Tensor) -> Tensor:
        if group_of(self.weight) is None:
            return super().forward(input)
        mine, elsewhere = _places(input, self.weight)
        return leave(F.embedding(mine, own(self.weight)).masked_fill(elsewhere[..., None], 0), self.weight)


def _places(tokens: Tensor, weight: Any) -> tuple[Tensor, Tensor]:
    """Rows of this process's part of `weight (V, D)`, and of which tokens the row is in another's."""
    rows = own(weight).size(0)
    mine = tokens - rows * dist.get_rank(group_of(weight))
    elsewhere = (mine < 0) | (mine >= rows)
    return mine.masked_fill(elsewhere, 0), elsewhere


def own_logits(hidden: Tensor, head_weight: Any, softcap: float | None) -> Tensor:
    """`hidden (..., D)`, which has entered, and this process's rows of the head -> its `(..., V / processes)`."""
    logits = F.linear(hidden, own(head_weight))
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def whole_logits(hidden: Tensor, head_weight: Any, softcap: float | None) -> Tensor:
    """`hidden (..., D)` -> `(..., V)` in every process."""
    logits = own_logits(enter(hidden, head_weight), head_weight, softcap)
    whole: Tensor = _Joined.apply(logits, group_of(head_weight))
    return whole


class _Joined(torch.autograd.Function):
    """Parts `(..., n)` side by side."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        ctx.place = dist.get_rank(group), dist.get_world_size(group)
        parts = [torch.empty_like(part) for _ in range(ctx.place[1])]
        dist.all_gather(parts, part.contiguous(), group=group)
        return torch.cat(parts, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        rank, size = ctx.place
        return grad.chunk(size, dim=-1)[rank].contiguous(), None


def cut_statistics(
    logits: Tensor, head_weight: Any, tokens: Tensor, *, entropy: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of `own_logits (N, V / processes)`: each of `tokens`' log-probability, the log-normaliser, and the distribution's
    entropy (where it is asked for, else zeros), `(N,)` in every process."""
    normalizer: Tensor = _LogNormalizer.apply(logits, group_of(head_weight))
    mine, elsewhere = _places(tokens, head_weight)
    target = leave(logits.gather(-1, mine[:, None])[:, 0].masked_fill(elsewhere, 0), head_weight)
    spread = torch.zeros_like(normalizer)
    if entropy:
        probabilities = (logits - enter(normalizer, head_weight)[:, None]).exp()
        spread = normalizer - leave((probabilities * logits).sum(dim=-1), head_weight)
    return target - normalizer, normalizer, spread


class _LogNormalizer(torch.autograd.Function):
    """log of the sum of exp of all processes' logits `(N, n)` -> `(N,)`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, group: Any) -> Tensor:
        largest = logits.amax(dim=-1)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        result = largest + _sum((logits - largest[:, None]).exp().sum(dim=-1), group).log()
        ctx.save_for_backward(logits, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, result = ctx.saved_tensors
        return (logits - result[:, None]).exp() * grad[:, None], None
