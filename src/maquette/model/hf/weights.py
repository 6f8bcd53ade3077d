"""Tensors in and out of safetensors files, checked by name and shape: nothing is missing, left over or misshapen."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import check_name
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import load_table, reading, short
from maquette.model.hf.family import ModelFamily, Stored

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


def read_weights(
    folder: Path,
    family: ModelFamily,
    tensors: Sequence[Stored],
    shapes: Mapping[str, torch.Size],
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """Our tensors by our names, read from `folder` and converted to `dtype` (None: as in the file).

    `shapes`: what ours must have. Raises `StageError` naming the first tensor that is missing, left over or of a
    wrong shape.
    """
    files = _full_names(weight_files(folder), family)
    expected = {stored.name for stored in tensors}
    if missing := [stored.name for stored in tensors if stored.name not in files]:
        raise StageError(f"{folder} lacks the tensor {missing[0]}{_more(missing)}.", _config_hint(family))
    if extra := sorted(files.keys() - expected - {family.head}):
        raise StageError(f"{folder} has a tensor too many, {extra[0]}{_more(extra)}.", _config_hint(family))
    result: dict[str, Tensor] = {}
    handles = {path: safe_open(path, framework="pt") for path, _ in set(files.values())}  # `weight_files` has read them
    total = sum(shape.numel() for shape in shapes.values())
    with progress("reading weights", total, unit="parameters") as advance:
        for stored in tensors:
            path, name = files[stored.name]
            with reading(f"{path}, {short(name)},", hint=_DAMAGED):
                tensor = handles[path].get_tensor(name)
            parts = [shapes[ours] if stored.expert is None else shapes[ours][1:] for ours in stored.ours]
            shape = (sum(part[0] for part in parts), *parts[0][1:])
            shape = shape[::-1] if stored.transposed else shape
            if tuple(tensor.shape) != shape:
                raise StageError(
                    f"{path}: {name} has the shape {tuple(tensor.shape)}; config.json says {shape}.",
                    _config_hint(family),
                )
            if not torch.isfinite(tensor).all():
                raise StageError(f"{path}: {name} holds NaN or infinite values: its training diverged.", DIVERGED)
            tensor = tensor.to(dtype or tensor.dtype)
            tensor = tensor.T if stored.transposed else tensor
            for ours, part in zip(stored.ours, tensor.split([part[0] for part in parts]), strict=True):
                if stored.expert is None:
                    result[ours] = part.contiguous()
                else:
                    stack = result.setdefault(ours, part.new_empty(shapes[ours]))
                    stack[stored.expert] = part
            advance(tensor.numel())
        for copy in {family.head} & files.keys() - expected:
            path, name = files[copy]
            embedding = result["core.embedding.weight"]
            if not torch.equal(handles[path].get_tensor(name).to(embedding.dtype), embedding):
                raise StageError(
                    f"{path}: {name} differs from the embedding, but config.json ties them.",
                    "Set tie_word_embeddings to false in config.json if the head is meant to be its own.",
                )
    return result


def write_weights(folder: Path, tensors: Sequence[Stored], state: Mapping[str, Tensor]) -> None:
    """Writes `model.safetensors` with their names and layout."""
    named = {}
    for stored in tensors:
        whole = [state[ours] if stored.expert is None else state[ours][stored.expert] for ours in stored.ours]
        tensor = torch.cat([part.detach().cpu() for part in whole])
        if not torch.isfinite(tensor).all():
            raise StageError(f"{stored.name} holds NaN or infinite values: training has diverged.", DIVERGED)
        named[stored.name] = (tensor.T if stored.transposed else tensor).contiguous()
    try:
        save_file(named, folder / _SINGLE, metadata={"format": "pt"})
    except SafetensorError as error:
        raise StageError(f"Can't write {folder / _SINGLE}: {error}.", "Is the disk full?") from error


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
