"""Lightning's strategy for weights that are shared out (FSDP2, `maquette.model.sharding`).

Lightning's `ModelParallelStrategy` (2.6) leaves the sharding to the LightningModule, writes past `CheckpointIO`, and
knows a mesh of data and tensor parallel processes only. Here any objective is sharded after `configure_model`, the
first process alone makes or reads the initial weights, and a checkpoint is the same file that one process or DDP
writes: whole, sealed, and read by as many processes as one likes.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from maquette.model.sharding import shard, whole_tensor

_GATHERED = StateDictOptions(full_state_dict=True, cpu_offload=True)
_SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class ShardedStrategy(ModelParallelStrategy):
    """`nodes` > 1: every machine has a copy of the model, shared out over its own devices (hybrid sharding), so that
    weights travel within a machine and gradients alone between them."""

    def __init__(self, *, nodes: int, compute_dtype: torch.dtype, timeout: datetime.timedelta) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timeout)
        self.nodes, self.compute_dtype = nodes, compute_dtype

    def setup_environment(self) -> None:
        self._setup_distributed()
        shape: tuple[int, ...] = (self.world_size,)
        if self.nodes > 1:
            shape = (self.nodes, self.world_size // self.nodes)
        names = ("replicate", "shard")[-len(shape) :]
        self._device_mesh = init_device_mesh(self.root_device.type, shape, mesh_dim_names=names)

    @property
    def trained(self) -> nn.Module:
        assert self.lightning_module is not None
        return self.lightning_module

    @contextlib.contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Iterator[None]:
        """`configure_model` makes weights in the first process; the others get theirs from it."""
        with torch.device("cpu" if self.is_global_zero else "meta"):
            yield

    def setup(self, trainer: Trainer) -> None:
        module = self.trained
        state = module.state_dict() if self.is_global_zero else {}
        buffers = dict(module.named_buffers())
        shard(module, self.device_mesh, compute_dtype=self.compute_dtype)
        if any(one.is_meta for one in module.parameters()):
            module.to_empty(device=self.root_device)
        super().setup(trainer)
        set_model_state_dict(module, state, options=_SPREAD)
        for name in buffers:
            dist.broadcast(module.get_buffer(name), src=0)

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Of the whole model, in the first process."""
        return get_model_state_dict(self.trained, options=_GATHERED)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As the optimiser gives it in one process, in the first one."""
        optimizer = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        gathered: dict[str, Any] = _each_tensor(optimizer.state_dict(), lambda value: whole_tensor(value).cpu())
        return gathered if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """The first process reads it, once for all."""
        read: dict[str, Any] = {}
        if self.is_global_zero:
            read = self.checkpoint_io.load_checkpoint(checkpoint_path)
        state, optimizers = read.pop("state_dict", {}), read.pop("optimizer_states", [])
        set_model_state_dict(self.trained, state, options=_SPREAD)
        for place, optimizer in enumerate(self.optimizers):
            self._load_optimizer(optimizer, optimizers[place] if self.is_global_zero else None)
        rest: dict[str, Any] = self.broadcast(read)
        return rest | {"state_dict": {}, "optimizer_states": []}

    def _load_optimizer(self, optimizer: Optimizer, state: dict[str, Any] | None) -> None:
        """From the first process's whole `state`: each process keeps its slices, one tensor at a time."""
        tensors: list[torch.Tensor] = []
        empty = _each_tensor(state, lambda value: (tensors.append(value), _Place(value.shape, value.dtype))[1])  # type: ignore[func-returns-value]
        empty = self.broadcast(empty)
        rest = iter(tensors)

        def receive(place: _Place) -> torch.Tensor:
            value = next(rest) if state is not None else torch.empty(place.shape, dtype=place.dtype)
            value = value.to(self.root_device).contiguous()
            dist.broadcast(value, src=0)
            return value

        filled = _each(empty, _Place, receive)
        # An optimiser of several parts keeps a state for each.
        for part, own in zip(getattr(optimizer, "pair", [optimizer]), filled.get("pair", [filled]), strict=True):
            parameters = [parameter for group in part.param_groups for parameter in group["params"]]
            for number, values in own["state"].items():
                values.update({name: _sliced_like(parameters[number], value) for name, value in values.items()})
        optimizer.load_state_dict(filled)


@dataclass(frozen=True)
class _Place:
    """Where a tensor of this shape comes."""

    shape: torch.Size
    dtype: torch.dtype


def _sliced_like(parameter: Any, value: Any) -> Any:
    if isinstance(parameter, DTensor) and isinstance(value, torch.Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value


def _each_tensor(tree: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    return _each(tree, torch.Tensor, function)


def _each(tree: Any, kind: type[Any], function: Callable[[Any], Any]) -> Any:
    """`tree` of dicts and lists, with `function` of everything in it that is a `kind`."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {key: _each(value, kind, function) for key, value in tree.items()}
    return [_each(value, kind, function) for value in tree] if isinstance(tree, list) else tree
