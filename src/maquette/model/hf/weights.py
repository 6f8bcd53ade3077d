"""Tensors in and out of safetensors files, checked by name and shape: nothing is missing, left over or misshapen."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import check_name
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import load_table, reading, short
from maquette.model.hf.family import ModelFamily, Stored
from maquette.model.tensor_file import write_tensors

_SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

DIVERGED = "Use an earlier checkpoint, or train again with a lower optimizer.lr."


def weight_files(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor of a Hugging Face folder: name -> path. Raises `StageError` naming the file that
    is missing or damaged; files that can run code when opened (`pytorch_model.bin`) are not read."""
    if (folder / _SINGLE).is_file():
        return dict.fromkeys(_names(folder / _SINGLE), folder / _SINGLE)
    if (folder / INDEX).is_file():
        listed = _read_index(folder / INDEX)
        holds = {file: set(_names(folder / file)) for file in sorted(set(listed.values()))}
        for name, file in listed.items():
            if name not in holds[file]:
                raise StageError(
                    f"{folder / file} lacks the tensor {short(name)}.", f"{INDEX} says it is there; fetch both again."
                )
        return {name: folder / file for file, names in holds.items() for name in names}
    if any(folder.glob("pytorch_model*.bin")):
        raise StageError(
            f"{folder} holds its weights as pytorch_model.bin only, a format that can run code when it is opened.",
            "Save it as safetensors first: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder).",
        )
    raise StageError(f"{folder / _SINGLE} is missing.", "The folder holds no weights as safetensors.")


def _read_index(path: Path) -> dict[str, str]:
    """Which file of the folder holds each tensor, as the index says."""
    hint = "Fetch the file again."
    listed = load_table(path, hint=hint).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise StageError(f"{path} is damaged: weight_map must name a file for each tensor, got {short(listed)}.", hint)
    for name, file in listed.items():
        try:
            check_name(file if isinstance(file, str) else "", "file")
        except ConfigError:
            raise StageError(
                f"{path}: {short(name)} must lie in a file of this folder, got {short(file)}.", hint
            ) from None
    return listed


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise StageError(f"{path} is missing, which {INDEX} lists.", "Fetch the folder again.")
    with reading(path, hint=_DAMAGED), safe_open(path, framework="pt") as file:
        return list(file.keys())


_DAMAGED = "It was cut or changed; fetch the file again."


Region = tuple[slice, ...]
"""A part of a tensor: a slice of each of its first dimensions."""


def read_weights(
    folder: Path,
    family: ModelFamily,
    tensors: Sequence[Stored],
    shapes: Mapping[str, torch.Size],
    dtype: torch.dtype | None,
    regions: Mapping[str, Region] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Our tensors by our names, read from `folder` one after another and converted to `dtype` (None: as in the file);
    of each its region alone where `regions` are given.

    `shapes`: what ours must have. Raises `StageError` naming the first tensor that is missing, left over or of a
    wrong shape.
    """
    files = _full_names(weight_files(folder), family)
    expected = {stored.name for stored in tensors}
    if missing := [stored.name for stored in tensors if stored.name not in files]:
        raise StageError(f"{folder} lacks the tensor {missing[0]}{_more(missing)}.", _config_hint(family))
    if extra := sorted(files.keys() - expected - {family.head}):
        raise StageError(f"{folder} has a tensor too many, {extra[0]}{_more(extra)}.", _config_hint(family))
    copies = {family.head} & files.keys() - expected
    handles: dict[Path, Any] = {}
    if regions is None:
        handles = {path: safe_open(path, framework="pt") for path, _ in set(files.values())}  # `weight_files` read them
    total = sum(shape.numel() for shape in shapes.values())
    experts = Counter(ours for stored in tensors if stored.expert is not None for ours in stored.ours)
    stacks: dict[str, Tensor] = {}  # of which some matrices have been read
    with progress("reading weights", total, unit="parameters") as advance:
        for stored in tensors:
            path, name = files[stored.name]
            parts = [shapes[ours] if stored.expert is None else shapes[ours][1:] for ours in stored.ours]
            places = None if regions is None else [_place(stored, regions[ours], shapes[ours]) for ours in stored.ours]
            shape = (sum(part[0] for part in parts), *parts[0][1:])
            shape = shape[::-1] if stored.transposed else shape
            with reading(f"{path}, {short(name)},", hint=_DAMAGED):
                # For regions the file is opened for each: its pages that were read before are let go of.
                handle = handles[path] if regions is None else safe_open(path, framework="pt")
                stored_shape = tuple(handle.get_slice(name).get_shape())
            if stored_shape != shape:
                raise StageError(
                    f"{path}: {name} has the shape {stored_shape}; config.json says {shape}.", _config_hint(family)
                )
            with reading(f"{path}, {short(name)},", hint=_DAMAGED):
                values = list(_read_parts(handle, name, stored, parts, places))
            del handle
            for ours in stored.ours:
                tensor = values.pop(0)
                if not torch.isfinite(tensor).all():
                    raise StageError(f"{path}: {name} holds NaN or infinite values: its training diverged.", DIVERGED)
                if copies and ours == "core.embedding.weight":
                    other, copy = files[family.head]
                    handle = handles.get(other) or safe_open(other, framework="pt")
                    same = _read_parts(handle, copy, Stored(copy, (ours,)), parts, places)[0]
                    if not torch.equal(same, tensor):
                        raise StageError(
                            f"{other}: {copy} differs from the embedding, but config.json ties them.",
                            "Set tie_word_embeddings to false in config.json if the head is meant to be its own.",
                        )
                count, tensor = tensor.numel(), tensor.to(dtype or tensor.dtype).contiguous()
                if stored.expert is None:
                    yield ours, tensor
                else:
                    pieces = (*(regions[ours] if regions is not None else ()), *[slice(None)] * len(shapes[ours]))
                    own, *others = (range(size)[piece] for size, piece in zip(shapes[ours], pieces, strict=False))
                    if ours not in stacks:
                        stacks[ours] = tensor.new_empty(len(own), *map(len, others))
                    if stored.expert in own:
                        stacks[ours][stored.expert - own.start] = tensor
                    experts[ours] -= 1
                    if not experts[ours]:
                        yield ours, stacks.pop(ours)
                advance(count)


def _place(stored: Stored, region: Region, shape: torch.Size) -> Region:
    """Where in a part of a stored tensor the region of ours lies."""
    if stored.expert is None:
        return region
    return region[1:] if stored.expert in range(shape[0])[region[0]] else (slice(0, 0),)


def _read_parts(
    handle: Any, name: str, stored: Stored, parts: Sequence[torch.Size], places: Sequence[Region] | None
) -> Sequence[Tensor]:
    """What of a stored tensor is ours, part by part, and of each part its region alone."""
    rows = [part[0] for part in parts]
    if places is None:
        tensor = handle.get_tensor(name)
        return (tensor.T if stored.transposed else tensor).split(rows)
    values, first = [], 0
    for region, count in zip(places, rows, strict=True):
        start, stop, _ = region[0].indices(count)
        place = (slice(first + start, first + stop), *region[1:])
        if stored.transposed:
            values.append(handle.get_slice(name)[(*[slice(None)] * (2 - len(place)), *place[::-1])].T)
        else:
            values.append(handle.get_slice(name)[place])
        first += count
    return values


def write_weights(
    folder: Path, tensors: Sequence[Stored], state: Mapping[str, Tensor], value: Callable[[str], Tensor] | None = None
) -> None:
    """Writes `model.safetensors` with their names and layout, one tensor after another. `value`: what gives ours, where
    `state` has their shapes alone, on the meta device."""
    layout = {stored.name: stored for stored in tensors}
    # A stack of experts is read once for the whole of its layer: gates, ups and downs take turns.
    ours = functools.lru_cache(3 if any(stored.expert is not None for stored in tensors) else 0)(
        value or state.__getitem__
    )

    def stored_tensor(name: str) -> Tensor:
        tensor = joined(layout[name], ours)
        if not torch.isfinite(tensor).all():
            raise StageError(f"{name} holds NaN or infinite values: training has diverged.", DIVERGED)
        return tensor

    def joined(stored: Stored, part: Callable[[str], Tensor]) -> Tensor:
        whole = [part(one) if stored.expert is None else part(one)[stored.expert] for one in stored.ours]
        tensor = torch.cat([one.detach() for one in whole])
        return tensor.T if stored.transposed else tensor

    shapes = {stored.name: joined(stored, lambda one: state[one].to("meta")) for stored in tensors}
    write_tensors(folder / _SINGLE, shapes, stored_tensor, {"format": "pt"})


def _full_names(files: dict[str, Path], family: ModelFamily) -> dict[str, tuple[Path, str]]:
    """Full tensor name -> (file, name in the file), without the family's old buffers; files of the bare model leave
    out the prefix."""
    needed = {name: path for name, path in files.items() if not name.endswith(family.ignored)}
    bare = family.prefix and not any(name.startswith(family.prefix) for name in needed)
    return {
        (family.prefix + name if bare and name != family.head else name): (path, name) for name, path in needed.items()
    }


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _config_hint(family: ModelFamily) -> str:
    return f"config.json ({family.architecture}) and the weights do not belong together; fetch both again."
