"""Lightning's strategy for weights that are shared out (FSDP2, `maquette.model.sharding`).

Lightning's `ModelParallelStrategy` (2.6) leaves the sharding to the LightningModule, writes past `CheckpointIO`, and
knows a mesh of data and tensor parallel processes only. Here any objective is sharded after `configure_model`, no
process makes more of the initial weights than its part, and checkpoints are written in the background
(sharded_checkpoint.py). What one process or DDP has written is read too, and the other way round.
"""

import contextlib
import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from maquette.data.process_group import agree
from maquette.model.loading import BASE
from maquette.model.sharding import own_part, own_region, shard
from maquette.training.checkpoint_io import seal
from maquette.training.sharded_checkpoint import Save, load_parts, read_rest

_SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class ShardedStrategy(ModelParallelStrategy):
    """`nodes` > 1: every machine has a copy of the model, shared out over its own devices (hybrid sharding), so that
    weights travel within a machine and gradients alone between them. `tensor_parallel_size`: neighbours that read the
    same batch, over which each matrix is cut up; `expert_parallel_size`: those over which experts are divided."""

    def __init__(
        self,
        *,
        nodes: int,
        compute_dtype: torch.dtype,
        timeout: datetime.timedelta,
        tensor_parallel_size: int = 1,
        expert_parallel_size: int = 1,
    ) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=timeout)
        self.nodes, self.compute_dtype = nodes, compute_dtype
        self.tensor, self.experts = tensor_parallel_size, expert_parallel_size
        self._save: Save | None = None
        self._stager: Any = None

    def setup_environment(self) -> None:
        self._setup_distributed()
        shape = {"replicate": self.nodes, "shard": self.world_size // self.nodes // self.tensor, "tensor": self.tensor}
        names = [name for name, size in shape.items() if size > 1 or name == "shard"]
        device, sizes = self.root_device.type, tuple(shape[name] for name in names)
        self._device_mesh = init_device_mesh(device, sizes, mesh_dim_names=tuple(names))
        self._data_mesh = self.device_mesh[tuple(name for name in names if name != "tensor")]
        self._expert_mesh = None
        if self.experts > 1:
            shares = (self.world_size // self.experts, self.experts)
            self._expert_mesh = init_device_mesh(device, shares, mesh_dim_names=("replicate", "expert"))
        self._talk = dist.new_group(backend="gloo", timeout=self._timeout)  # between processors, beside training

    @property
    def data_place(self) -> tuple[int, int]:
        """Which part of the data this process reads, and of how many."""
        return self.global_rank // self.tensor, self.world_size // self.tensor

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        rank, parts = self.data_place
        return {"num_replicas": parts, "rank": rank}

    @functools.cached_property
    def data_group(self) -> Any:
        """Processes that read different parts of the data, one for each; None where that is all."""
        if self.tensor == 1:
            return None
        return (self._data_mesh._flatten("data") if self._data_mesh.ndim > 1 else self._data_mesh).get_group()

    @property
    def trained(self) -> nn.Module:
        assert self.lightning_module is not None
        return self.lightning_module

    @contextlib.contextmanager
    def tensor_init_context(self, empty_init: bool | None = None) -> Iterator[None]:
        """`configure_model` makes no weights where they can be had one by one afterwards."""
        with torch.device("meta" if getattr(self.trained, "builds_empty", False) else "cpu"):
            yield

    def setup(self, trainer: Trainer) -> None:
        module = self.trained
        for tensor in (*module.parameters(), *module.buffers()):  # what a user's code has made
            if not tensor.is_meta:
                dist.broadcast(tensor.detach(), src=0, group=self._talk)
        shard(
            module, self._data_mesh, compute_dtype=self.compute_dtype,
            tensor=self.device_mesh["tensor"] if self.tensor > 1 else None, experts=self._expert_mesh,
        )  # fmt: skip
        empty = {name: one for name, one in module.named_parameters() if one.is_meta}
        # Zeros, as a buffer starts: a router's bias is in no checkpoint but this project's own.
        module._apply(lambda one: torch.zeros_like(one, device=self.root_device) if one.is_meta else one)
        if empty:
            self._fill(module)
        super().setup(trainer)

    @torch.no_grad()
    def _fill(self, module: Any) -> None:
        """Each process draws, or reads, the weights one after another, and keeps its part of each: the whole model is
        nowhere."""
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        regions = {name: own_region(tensor) for name, tensor in tensors.items()}
        for name, value in module.initial_regions(regions.__getitem__, verify=self.is_global_zero):
            own_part(tensors[name]).copy_(value)
            del value  # before the next is made

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Every process's parts."""
        return get_model_state_dict(self.trained)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """As the optimiser gives it, with this process's parts."""
        return (optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Copies what is saved, and returns: it is written while training goes on."""
        self.finish_saving()
        path, step = Path(agree(filepath)), int(checkpoint.get("global_step", 0))
        if self.is_global_zero and path.is_file():  # of one process
            self.checkpoint_io.remove_checkpoint(path)
        if self._stager is None and self.root_device.type == "cuda":  # keeps its pinned memory
            self._stager = DefaultStager(StagingOptions(True, False, False, True))
        self._save = Save(
            checkpoint, path, lambda path, files: seal(path, step, files), self._talk, stager=self._stager
        )

    @property
    def is_saving(self) -> bool:
        """Whether this process still writes its part of the last checkpoint."""
        return self._save is not None and not self._save.is_done

    def finish_saving(self) -> None:
        """Waits until the last checkpoint is written and sealed. Raises `StageError` where it can't be."""
        save, self._save = self._save, None
        if save is not None:
            save.wait()

    def teardown(self) -> None:
        try:
            self.finish_saving()
        finally:
            super().teardown()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Every process reads its parts of a folder; the first process alone reads what one process has written."""
        path, read = Path(self.broadcast(checkpoint_path)), {}
        self.finish_saving()
        sharded = path.is_dir()
        if self.is_global_zero:
            read = read_rest(path) if sharded else self.checkpoint_io.load_checkpoint(path)
        if sharded:
            read = self.broadcast(read)
            states = load_parts(path, read, get_model_state_dict(self.trained), self.optimizers, self._talk)
            for optimizer, state in zip(self.optimizers, states, strict=True):
                optimizer.load_state_dict(state)
            return read | {"state_dict": {}, "optimizer_states": []}
        state, optimizers = read.pop("state_dict", {}), read.pop("optimizer_states", [])
        # Of an adapter the file has what is trained: the model has the rest.
        partial = self.broadcast(BASE in read)
        set_model_state_dict(self.trained, state, options=dataclasses.replace(_SPREAD, strict=not partial))
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
        part = torch.empty_like(parameter, dtype=value.dtype)
        own_part(part).copy_(value[own_region(parameter)])
        return part
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
