"""A checkpoint of sharded weights: a folder, which every process writes its part of, while training goes on.

`step-00000123.ckpt/shard-00001.safetensors`, ... hold what is cut up, weights and optimiser states, written by
`torch.distributed.checkpoint`; `rest.pt` holds everything else, laid out as a checkpoint of one process is, with a
`{"sharded": name, ...}` where each of those tensors would stand. So either can be made from the other, by as many
processes as one likes. `step-00000123.json` beside it has the SHA-256 of every file, taken by the process that wrote
it, and is written last.

PyTorch's own format describes the shards in a pickled file, which could run code when it is read; its reader for
safetensors finds the same in their headers.
"""

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.distributed.tensor import DTensor

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_folder, explain_os_error, file_digest, listed, scratch_folder
from maquette.artifacts.reading import reading, short
from maquette.data.process_group import agree
from maquette.model.tensor_file import write_tensors

REST = "rest.pt"
_SHARDED = "sharded"
_CUT_UP = ("state_dict", "optimizer_states")
_OFFSETS = "DCP_SHARDING_INFO"
"""Where PyTorch's reader of safetensors looks for the place of each piece."""

Seal = Callable[[Path, dict[str, dict[str, Any]]], None]
"""Declares a checkpoint good: its path, and bytes and SHA-256 of each file."""


def is_sharded(path: Path | str) -> bool:
    """Whether a checkpoint is a folder of this kind."""
    return (Path(path) / REST).is_file()


# Writing --------------------------------------------------------------------------------------------------------------


class Save:
    """A checkpoint that is being written. All processes make one, and `wait` before the next."""

    def __init__(
        self, checkpoint: dict[str, Any], path: Path, seal: Seal, group: dist.ProcessGroup, *, stager: Any = None
    ) -> None:
        """When it returns, the tensors are copied, and may change."""
        self.path = path
        self._scratch = contextlib.ExitStack()
        rest, tensors = _split(checkpoint)
        buffer = io.BytesIO()
        folder = None
        if dist.get_rank() == 0:
            torch.save(rest, buffer)
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = self._scratch.enter_context(scratch_folder(path))
        writer = _Writer(agree(folder), path, buffer.getvalue(), seal)
        self._future: Future[Any] = dcp.async_save(
            tensors, storage_writer=writer, process_group=group, async_stager=stager
        )  # type: ignore[assignment]

    @property
    def is_done(self) -> bool:
        return self._future.done()

    def wait(self) -> None:
        """Until it is sealed. Raises `StageError` where it could not be written."""
        try:
            self._future.result()
        except CheckpointException as error:
            causes = [cause for cause, _ in error.failures.values()]  # what each process raised
            if isinstance(causes[0], OSError):
                raise explain_os_error(causes[0], self.path) from error
            raise StageError(f"Can't write {self.path}: {short(causes[0])}") from error
        finally:
            self._scratch.close()


class _Writer(StorageWriter):
    """Every process's part in one file of `folder`; the first one puts all in their place when the last has ended."""

    def __init__(self, folder: Path, path: Path, rest: bytes, seal: Seal) -> None:
        self.folder, self.path, self.rest, self.seal = folder, path, rest, seal

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *arguments: Any, **settings: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [dataclasses.replace(plan, storage_data=number) for number, plan in enumerate(plans, 1)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> "torch.futures.Future[list[WriteResult]]":
        items = {item.index.fqn: item for item in plan.items if _chunk(item).sizes.numel()}
        name = f"shard-{plan.storage_data:05d}.safetensors"
        results = []
        if items:
            shapes = {
                key: torch.empty(_chunk(item).sizes, dtype=item.tensor_data.properties.dtype, device="meta")  # type: ignore[union-attr]
                for key, item in items.items()
            }
            offsets = {key: {"saved_offsets": list(_chunk(item).offsets)} for key, item in items.items()}
            path = self.folder / name
            digest = write_tensors(
                path, shapes, lambda key: planner.resolve_data(items[key]),  # type: ignore[arg-type, return-value]
                {_OFFSETS: json.dumps(offsets), "format": "pt"},
            )  # fmt: skip
            facts = {"bytes": path.stat().st_size, "sha256": digest}
            results = [WriteResult(item.index, shapes[key].nbytes, (name, facts)) for key, item in items.items()]
        future: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        future.set_result(results)
        return future

    def finish(self, metadata: Any, results: list[list[WriteResult]]) -> None:
        files = dict(result.storage_data for part in results for result in part)
        with atomic_folder(self.path, is_sharded) as folder:
            for name in files:
                (self.folder / name).rename(folder / name)
            (folder / REST).write_bytes(self.rest)
            files[REST] = {"bytes": len(self.rest), "sha256": file_digest(folder / REST)}
        self.seal(self.path, files)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return True


def _chunk(item: WriteItem) -> Any:
    assert item.tensor_data is not None
    return item.tensor_data.chunk


def _split(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What is cut up, by a name made of its place, and the rest."""
    tensors: dict[str, Tensor] = {}

    def without(tree: Any, place: str) -> Any:
        if isinstance(tree, DTensor):
            tensors[place] = tree.detach()
            return {_SHARDED: place, "shape": list(tree.shape), "dtype": str(tree.dtype).removeprefix("torch.")}
        if isinstance(tree, dict):
            return {key: without(value, f"{place}/{key}") for key, value in tree.items()}
        return [without(value, f"{place}/{key}") for key, value in enumerate(tree)] if isinstance(tree, list) else tree

    rest = {key: without(value, key) if key in _CUT_UP else value for key, value in checkpoint.items()}
    return rest, tensors


# Reading --------------------------------------------------------------------------------------------------------------


def read_rest(path: Path) -> dict[str, Any]:
    """A checkpoint without its tensors. Raises `StageError` where it is missing or damaged."""
    with reading(path / REST, hint="Remove the checkpoint: the run resumes from the one before it."):
        rest: dict[str, Any] = torch.load(path / REST, map_location="cpu", weights_only=True)
    return rest


def filled(tree: Any, value: Callable[[str], Tensor]) -> Any:
    """`tree` with tensors where their names stand."""
    if isinstance(tree, dict):
        return value(tree[_SHARDED]) if _SHARDED in tree else {key: filled(one, value) for key, one in tree.items()}
    return [filled(one, value) for one in tree] if isinstance(tree, list) else tree


def read_whole(path: Path) -> dict[str, Any]:
    """The checkpoint as one process would have written it."""
    rest, tensors = read_rest(path), WholeTensors(path)
    return {key: filled(value, tensors.__getitem__) if key in _CUT_UP else value for key, value in rest.items()}


class WholeTensors(Mapping[str, Tensor]):
    """What the shards of a folder hold, put together one at a time, when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._pieces: dict[str, list[tuple[Any, list[int], list[int]]]] = {}
        for file in listed(path, "shard-*.safetensors"):
            with reading(file, hint="Remove the checkpoint: the run resumes from the one before it."):
                shard = safe_open(file, framework="pt")
                for name, facts in json.loads(shard.metadata()[_OFFSETS]).items():
                    starts, shape = facts["saved_offsets"], shard.get_slice(name).get_shape()
                    self._pieces.setdefault(name, []).append((shard, starts, shape))

    def __getitem__(self, name: str) -> Tensor:
        pieces = self._pieces[name]
        ends = [[start + size for start, size in zip(starts, shape, strict=True)] for _, starts, shape in pieces]
        first = pieces[0][0].get_tensor(name)
        whole = torch.empty([max(sizes) for sizes in zip(*ends, strict=True)], dtype=first.dtype)
        for (shard, starts, _), stops in zip(pieces, ends, strict=True):
            whole[tuple(map(slice, starts, stops))] = shard.get_tensor(name)
        return whole

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


class StoredState(Mapping[str, Tensor]):
    """The weights of a checkpoint, each read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._state, self._tensors = read_rest(path)["state_dict"], WholeTensors(path)

    def shape(self, name: str) -> Tensor:
        """A tensor of its shape and dtype, on the meta device."""
        value = self._state[name]
        if isinstance(value, Tensor):
            return value.to("meta")
        return torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device="meta")

    def __getitem__(self, name: str) -> Tensor:
        return filled(self._state[name], self._tensors.__getitem__)

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def load_parts(
    path: Path, rest: dict[str, Any], module_state: dict[str, Any], optimizers: list[Any], group: dist.ProcessGroup
) -> list[dict[str, Any]]:
    """Reads every process's parts of the weights into `module_state`, in place, and returns the optimisers' states.

    `rest`: `read_rest`'s. Each process reads what it keeps, whoever wrote it.
    """
    targets = {}
    for name, value in rest["state_dict"].items():
        if isinstance(value, dict):
            targets[value[_SHARDED]] = module_state[name].detach()
        else:
            module_state[name].copy_(value)
    for optimizer, state in zip(optimizers, rest["optimizer_states"], strict=True):
        # An optimiser of several parts keeps a state for each.
        for part, own in zip(getattr(optimizer, "pair", [optimizer]), state.get("pair", [state]), strict=True):
            parameters = [parameter for one in part.param_groups for parameter in one["params"]]
            for number, values in own["state"].items():
                for value in values.values():
                    if isinstance(value, dict):
                        targets[value[_SHARDED]] = _room(value, parameters[number])
    with reading(path, hint="Remove it: the run resumes from the checkpoint before it."):
        dcp.load(targets, storage_reader=HuggingFaceStorageReader(str(path)), process_group=group)
    return [filled(state, targets.__getitem__) for state in rest["optimizer_states"]]


def _room(described: dict[str, Any], parameter: Tensor) -> Tensor:
    """For a state that is cut up as its parameter is, or whole where it has a shape of its own."""
    dtype = getattr(torch, described["dtype"])
    if list(parameter.shape) == described["shape"]:
        return torch.zeros_like(parameter, dtype=dtype)
    return torch.zeros(described["shape"], dtype=dtype)
