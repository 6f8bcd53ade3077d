"""Expert parallelism: the experts of a layer divided over processes, and tokens sent to where theirs are.

Each process reads a part of the batch and has E / n of the experts, whole. It learns how many tokens the others send to
each of them, gets those (all-to-all), and sends back what the experts have made of them, so none is dropped whatever
the loads are (Lepikhin et al. 2020, "GShard", section 3.2, without its capacity). Weights that are divided are DTensors
over a mesh whose last dimension is `expert`; the router and everything else is as without.

    rows of a process, by expert         0 0 1 2 2 3 | experts 0, 1 are in process 0, experts 2, 3 in process 1
    all-to-all, in process 0             0 0 1 (of 0)  0 1 1 (of 1)
    by expert                            0 0 0 1 1 1, through its experts, and all the way back
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from maquette.artifacts import ConfigError
from maquette.model.architecture import MixtureOfExpertsConfig
from maquette.model.core_config import CoreConfig


def check_expert_parallel(config: CoreConfig, size: int) -> None:
    """Raises `ConfigError` where a model's experts can't be divided over so many processes."""
    if not isinstance(config, MixtureOfExpertsConfig):
        raise ConfigError(
            f"expert_parallel_size={size} is for a mixture of experts, not for model={config.kind}.",
            "Leave it out, or use model=moe.",
        )
    if config.num_experts % size:
        allowed = [one for one in range(1, config.num_experts + 1) if config.num_experts % one == 0]
        raise ConfigError(
            f"expert_parallel_size={size} does not divide the model's {config.num_experts} experts.",
            f"Allowed for them: {', '.join(map(str, allowed))}.",
        )


@dataclass(frozen=True)
class Exchange:
    """Of one layer's forward pass. `counts (E / n,)`: tokens of each of this process's experts, those of all processes
    together. `sends`, `receives`: rows to and from each process; `order`: from theirs to that by expert, `back`: from
    there."""

    group: Any
    sends: list[int]
    receives: list[int]
    counts: Tensor
    order: Tensor
    back: Tensor

    @classmethod
    def of(cls, weight: Any, counts: Tensor) -> "Exchange | None":
        """`counts (E,)`: tokens of this process that go through each expert. None where all experts are here."""
        if type(weight) is nn.Parameter or not hasattr(weight, "device_mesh"):
            return None
        if weight.device_mesh.mesh_dim_names[-1] != "expert":
            return None
        group = weight.device_mesh.get_group("expert")
        theirs = torch.empty_like(counts)
        dist.all_to_all_single(theirs, counts, group=group)
        of_each = theirs.view(dist.get_world_size(group), -1)  # by process, and by expert of this one
        sends, receives = torch.stack([counts.view_as(of_each).sum(dim=1), of_each.sum(dim=1)]).tolist()
        expert = torch.arange(theirs.numel(), device=theirs.device) % of_each.size(1)
        order = expert.repeat_interleave(theirs).argsort(stable=True)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return cls(group, sends, receives, of_each.sum(dim=0), order, back)

    def to_experts(self, rows: Tensor) -> Tensor:
        """This process's rows by expert -> those of all processes for its own experts, by expert."""
        given: Tensor = _Exchanged.apply(rows, self)
        return given

    def from_experts(self, rows: Tensor) -> Tensor:
        """And back again."""
        given: Tensor = _Fetched.apply(rows, self)
        return given

    def part(self, weight: Any, dtype: torch.dtype) -> Tensor:
        """This process's matrices of `weight`. Their gradient is that of the mean over the group's parts of the batch,
        as every other weight's is."""
        part: Tensor = _Mean.apply(weight.to_local(), len(self.sends))
        return part.to(dtype)


def _exchanged(rows: Tensor, sends: list[int], receives: list[int], group: Any) -> Tensor:
    given = rows.new_empty(sum(receives), rows.size(1))
    dist.all_to_all_single(given, rows.contiguous(), receives, sends, group=group)
    return given


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, way: Exchange) -> Tensor:
        ctx.way = way
        return _exchanged(rows, way.sends, way.receives, way.group).index_select(0, way.order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        way = ctx.way
        return _exchanged(grad.index_select(0, way.back), way.receives, way.sends, way.group), None


class _Fetched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, way: Exchange) -> Tensor:
        ctx.way = way
        return _exchanged(rows.index_select(0, way.back), way.receives, way.sends, way.group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        way = ctx.way
        return _exchanged(grad, way.sends, way.receives, way.group).index_select(0, way.order), None


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, processes: int) -> Tensor:
        ctx.processes = processes
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.processes, None
