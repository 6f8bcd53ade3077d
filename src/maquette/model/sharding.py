"""Weights shared out over processes: FSDP2 (`torch.distributed.fsdp.fully_shard`).

Each process keeps a slice of every parameter. A block's weights are gathered when it computes, and let go of after;
what is outside the blocks (embedding, last norm, head) is gathered for the whole step, because losses multiply with the
head's matrix themselves. Gradients are averaged over all processes and sliced the same way, so that the optimiser moves
its slice alone (Rajbhandari et al. 2020, ZeRO stage 3).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from maquette.model.transformer import Block

STEPS = ("training_step", "validation_step")
"""What Lightning calls instead of `forward`: the gathering begins there."""


def shard(module: nn.Module, mesh: DeviceMesh, *, compute_dtype: torch.dtype = torch.float32) -> None:
    """Shares out the parameters of a LightningModule over `mesh`: one dimension, or replicas x shards.

    Weights stay in their own dtype, as slices; products are of `compute_dtype`, gradients are averaged in float32.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=None if compute_dtype == torch.float32 else compute_dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # rewards and positions keep their digits; hidden states follow from the weights
    )
    blocks: list[Any] = [one for one in module.modules() if isinstance(one, Block)]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    whole_module: Any = fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for name in STEPS:
        register_fsdp_forward_method(whole_module, name)
    # What backward gathers ahead is said, not learnt from the forward passes: where one process alone has sampled,
    # processes would have seen different ones, and wait for each other for ever.
    for block, before in zip([whole_module, *reversed(blocks)], [*reversed(blocks), whole_module], strict=True):
        block.set_modules_to_backward_prefetch([before])


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
    try:
        yield
    finally:
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
