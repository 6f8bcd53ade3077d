"""Weights shared out over processes: FSDP2 (`torch.distributed.fsdp.fully_shard`).

Each process keeps a slice of every parameter. A block's weights are gathered when it computes, and let go of after;
what is outside the blocks (embedding, last norm, head) is gathered for the whole step, because losses multiply with the
head's matrix themselves. Gradients are averaged over all processes and sliced the same way, so that the optimiser moves
its slice alone (Rajbhandari et al. 2020, ZeRO stage 3).

Before that, matrices may be cut up over processes that read the same batch (tensor_parallel.py), and are never whole
again while training; each part is then sliced. Or experts are divided (expert_parallel.py): they are not gathered,
and their gradients are averaged over the processes that have the same ones.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from maquette.model.experts import StackedLinear
from maquette.model.tensor_parallel import cut_dimension
from maquette.model.transformer import Block

STEPS = ("training_step", "validation_step")
"""What Lightning calls instead of `forward`: the gathering begins there."""


def shard(
    module: nn.Module,
    mesh: DeviceMesh,
    *,
    compute_dtype: torch.dtype = torch.float32,
    tensor: DeviceMesh | None = None,
    experts: DeviceMesh | None = None,
) -> None:
    """Shares out the parameters of a LightningModule over `mesh`: one dimension, or replicas x shards.

    Weights stay in their own dtype, as slices; products are of `compute_dtype`, gradients are averaged in float32.
    `tensor`: processes that read the same batch, over which matrices are cut up first. `experts`: replicas x experts,
    over which stacks of matrices are divided instead of sharded.
    """
    if tensor is not None:
        for name, parameter in list(module.named_parameters()):
            if (dimension := cut_dimension(name, parameter, tensor.size())) is not None:
                _distribute(module, name, tensor, [Shard(dimension)])
    apart = set() if experts is None else _divide_experts(module, experts)
    policy = MixedPrecisionPolicy(
        param_dtype=None if compute_dtype == torch.float32 else compute_dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # rewards and positions keep their digits; hidden states follow from the weights
    )
    blocks: list[Any] = [one for one in module.modules() if isinstance(one, Block)]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=apart)
    whole_module: Any = fully_shard(
        module, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=apart
    )
    for name in STEPS:
        register_fsdp_forward_method(whole_module, name)
    # What backward gathers ahead is said, not learnt from the forward passes: where one process alone has sampled,
    # processes would have seen different ones, and wait for each other for ever.
    for block, before in zip([whole_module, *reversed(blocks)], [*reversed(blocks), whole_module], strict=True):
        block.set_modules_to_backward_prefetch([before])


def _distribute(module: nn.Module, name: str, mesh: DeviceMesh, placements: list[Placement]) -> nn.Parameter:
    """Puts this process's part in the place of a parameter that is the same in all of them."""
    owner, _, last = name.rpartition(".")
    old: Any = module.get_parameter(name)
    part = nn.Parameter(
        distribute_tensor(old.detach(), mesh, placements, src_data_rank=None), requires_grad=old.requires_grad
    )
    setattr(module.get_submodule(owner), last, part)
    return part


def _divide_experts(module: nn.Module, mesh: DeviceMesh) -> set[nn.Parameter]:
    """Each process's experts in the place of all; nothing gathers or averages them but what is done here."""
    replicas = mesh.get_group(0)

    def average(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        grad = own_part(parameter.grad)
        dist.all_reduce(grad, group=replicas)
        grad.div_(mesh.size(0))

    stacks = [name for name, one in module.named_modules() if isinstance(one, StackedLinear)]
    parts = {_distribute(module, f"{name}.weight", mesh, [Replicate(), Shard(0)]) for name in stacks}
    for part in parts if mesh.size(0) > 1 else ():
        part.register_post_accumulate_grad_hook(average)
    return parts


@contextlib.contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Within the block every process has all weights, for what is done between steps, such as generating: no process
    waits for another there, however long its texts are. All processes must enter and leave it."""
    shards: list[Any] = [one for one in module.modules() if isinstance(one, FSDPModule)]
    for one in shards[:1]:
        one._get_fsdp_state()._lazy_init()  # from the whole module on, though a part of it may compute first
    for one in shards:
        one.set_reshard_after_forward(False, recurse=False)
        one.unshard()
    parts: list[tuple[nn.Module, str, Any]] = [
        (owner, name, part)
        for owner in module.modules()
        for name, part in owner._parameters.items()
        if isinstance(part, DTensor)  # of a matrix that is cut up, or of experts that are divided
    ]
    dtype = next((one.dtype for one in module.parameters() if is_here(one)), None)  # that of what is gathered
    for owner, name, part in parts:
        full = part.detach().full_tensor().to(dtype)
        owner._parameters[name] = nn.Parameter(full, requires_grad=part.requires_grad)
    try:
        yield
    finally:
        for owner, name, part in parts:
            owner._parameters[name] = part
        for one in shards:
            one.reshard()
            one.set_reshard_after_forward(one is not module, recurse=False)


def own_region(parameter: Tensor) -> tuple[slice, ...]:
    """Which part of the whole parameter this process keeps: a slice of each of its dimensions."""
    if not isinstance(parameter, DTensor):
        return tuple(slice(0, size) for size in parameter.shape)
    shape, starts = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))


def own_part(tensor: Tensor) -> Tensor:
    """The part of it that this process keeps; changing it changes the whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def is_here(parameter: Tensor) -> bool:
    """Whether this process has all of it at the moment."""
    return not isinstance(parameter, DTensor)


def whole_tensor(value: Tensor) -> Tensor:
    """A norm, say, that was taken over slices, as every process needs it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def clip_gradient_norm(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_`, also of parameters that are shared out over different meshes: scales gradients
    so that the norm of all of them together is at most `limit`, and returns the norm that it was."""
    parameters = [one for one in parameters if one.grad is not None]
    every: list[Any] = [one.grad for one in parameters]
    over: dict[Any, list[Any]] = {}  # in the same order everywhere
    for one in every:
        over.setdefault(getattr(one, "device_mesh", None), []).append(one)
    if len(over) <= 1:
        return whole_tensor(nn.utils.clip_grad_norm_(parameters, limit))
    squares = []
    for mesh, grads in over.items():
        squares.append(nn.utils.get_total_norm([own_part(one) for one in grads]).square())
        for dimension, placement in enumerate(grads[0].placements):
            if not placement.is_replicate():
                dist.all_reduce(squares[-1], group=mesh.get_group(dimension))
    norm = torch.stack(squares).sum().sqrt()
    torch._foreach_mul_([own_part(one) for one in every], (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm
