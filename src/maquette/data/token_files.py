"""Files of token ids that others wrote, memory-mapped where they lie: nothing is copied.

nanogpt    raw uint16 or uint32 (train.bin, val.bin); files with llm.c's header of 1,024 bytes are known by it
olmo       raw ids in .npy without a header, as OLMo and Dolma write them; NumPy's own .npy files too
datasets   the Arrow files of `Dataset.save_to_disk`, of which one column of lists is read (without copying: a
           list column's values lie in one run)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.artifacts.files import listed
from maquette.artifacts.reading import load_array, load_table, reading

Ids = NDArray[Any]


_LLM_C_MAGIC, _LLM_C_HEADER = 20240520, 1024
_NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class TokenFile:
    """One file and how its ids lie in it: `layout` is raw (after `offset` bytes), npy or arrow (in `column`)."""

    path: Path
    layout: str
    dtype: str = ""
    offset: int = 0
    column: str = ""

    def entry(self, start: int, tokens: int) -> dict[str, Any]:
        """The shard of a manifest that means `tokens` ids from `start` on."""
        return {
            "file": str(self.path), "layout": self.layout, "dtype": self.dtype, "offset": self.offset,
            "column": self.column, "start": start, "tokens": tokens,
        }  # fmt: skip


def map_entry(entry: Mapping[str, Any]) -> list[Ids]:
    """The ids of a manifest's shard, as views of the mapped file. Raises `StageError` where it is gone or shorter."""
    file = TokenFile(Path(entry["file"]), entry["layout"], entry["dtype"], entry["offset"], entry["column"])
    start, left, parts = entry["start"], entry["tokens"], []
    for part in map_file(file):
        piece = part[start : start + left]
        start, left = max(0, start - len(part)), left - len(piece)
        if len(piece):
            parts.append(piece)
    if left:
        raise StageError(f"{file.path} has {left:,} tokens fewer than when it was first read.", "Restore the file.")
    return parts


def map_file(file: TokenFile) -> list[Ids]:
    """All ids of a file, in one or more runs. Raises `StageError` that names the file where it can't be read."""
    with reading(file.path, hint="The tokens are read where they lie: put the file back."):
        if file.layout == "npy":
            return [load_array(file.path, mapped=True).reshape(-1)]
        if file.layout == "arrow":
            return [values for values, _ in arrow_lists(file.path, file.column)]
        return [np.asarray(np.memmap(file.path, dtype=file.dtype, mode="r", offset=file.offset))]


def arrow_lists(path: Path, column: str) -> list[tuple[Ids, NDArray[np.int64]]]:
    """Of each record batch of an Arrow file the ids in one run, and where its rows begin in that run."""
    import pyarrow as pa

    with reading(path):
        mapped = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_stream(mapped)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(mapped)
    if column not in reader.schema.names:
        raise StageError(
            f"{path} has no column {column!r}.",
            f"Columns: {', '.join(reader.schema.names)}. Choose one with pretokenized.column=.",
        )
    batches = reader if isinstance(reader, pa.RecordBatchStreamReader) else map(reader.get_batch, _count(reader))
    with reading(path):
        return [_lists(path, column, batch.column(reader.schema.names.index(column))) for batch in batches]


def _count(reader: Any) -> range:
    return range(reader.num_record_batches)


def _lists(path: Path, column: str, rows: Any) -> tuple[Ids, NDArray[np.int64]]:
    import pyarrow as pa

    kind = rows.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise StageError(f"{path}: column {column!r} holds {kind}, not lists of token ids.", "Tokenize the text first.")
    if rows.null_count:
        raise StageError(f"{path}: {rows.null_count} rows of {column!r} are empty (null).", "Drop them first.")
    values = rows.flatten()
    if values.null_count:
        raise StageError(f"{path}: {values.null_count} ids of {column!r} are null.", "Drop these rows first.")
    if pa.types.is_fixed_size_list(kind):
        starts = np.arange(len(rows), dtype=np.int64) * kind.list_size
    else:
        offsets = rows.offsets.to_numpy()
        starts = (offsets[:-1] - offsets[0]).astype(np.int64) if len(rows) else np.zeros(0, np.int64)
    return values.to_numpy(zero_copy_only=True), starts


# Which files there are


def guess_format(path: Path) -> str:
    """The format of a file or folder. Raises `StageError` where nothing in it looks like tokens."""
    if path.is_dir():
        if _is_dataset(path) or (path / "dataset_dict.json").is_file():
            return "datasets"
        names = sorted(file.name for file in listed(path, "**/*") if file.is_file())
        for ending, format in ((".bin", "nanogpt"), (".npy", "olmo"), (".arrow", "datasets")):
            if any(name.endswith(ending) for name in names):
                return format
        raise StageError(
            f"{path} holds no tokens that are known.",
            "Known: nanoGPT's .bin, OLMo's .npy, a folder written by datasets' save_to_disk.",
        )
    if path.suffix in (".bin", ".npy"):
        return "nanogpt" if path.suffix == ".bin" else "olmo"
    if path.exists():
        raise StageError(f"{path} is not a file of tokens that is known.", "Give pretokenized.format=nanogpt or olmo.")
    raise StageError(f"pretokenized.path={path} does not exist.", "Give a file or a folder.")


def find_files(path: Path, format: str, column: str) -> dict[str, dict[str, list[TokenFile]]]:
    """`{domain: {split: files}}`. A folder whose data lie in folders below it has one domain for each of these.

    Splits are told by how names begin: train, val or validation, test; what is called otherwise is for training.
    Raises `StageError` where there is nothing.
    """
    find = _dataset_files if format == "datasets" else _plain_files
    ending = {"nanogpt": ".bin", "olmo": ".npy", "datasets": ""}[format]
    own = find(path, ending, column)
    if own:
        return {path.stem if path.is_file() else path.resolve().name: own}
    below = {folder.name: find(folder, ending, column) for folder in listed(path) if folder.is_dir()}
    splits_below = {name: splits for name, splits in below.items() if splits}
    if not splits_below:
        raise StageError(f"{path} holds no tokens of {format}'s.", "Look at pretokenized.path and pretokenized.format.")
    return splits_below


def split_of(name: str) -> str:
    """The split that the name of a file or folder means."""
    plain = name.lower()
    if plain.startswith(("val", "dev", "eval")):
        return "validation"
    return "test" if plain.startswith("test") else "train"


def _plain_files(path: Path, ending: str, column: str) -> dict[str, list[TokenFile]]:
    paths = [path] if path.is_file() else [file for file in listed(path, f"*{ending}") if file.is_file()]
    files: dict[str, list[TokenFile]] = {}
    for file in paths:
        files.setdefault("train" if path.is_file() else split_of(file.stem), []).append(_plain_file(file))
    return files


def _plain_file(path: Path) -> TokenFile:
    with reading(path), path.open("rb") as file:
        head = file.read(8)
    if head.startswith(_NPY_MAGIC[:6]):
        return TokenFile(path, "npy")
    if len(head) == 8 and np.frombuffer(head, np.int32)[0] == _LLM_C_MAGIC:
        return TokenFile(path, "raw", "uint16", _LLM_C_HEADER)
    return TokenFile(path, "raw")


def _is_dataset(path: Path) -> bool:
    return (path / "state.json").is_file()


def _dataset_files(path: Path, ending: str, column: str) -> dict[str, list[TokenFile]]:
    if _is_dataset(path):
        return {"train": _arrow_files(path, column)}
    folders = [folder for folder in listed(path) if folder.is_dir() and _is_dataset(folder)]
    if not (path / "dataset_dict.json").is_file():
        return {}
    files: dict[str, list[TokenFile]] = {}
    for folder in folders:
        files.setdefault(split_of(folder.name), []).extend(_arrow_files(folder, column))
    return files


def _arrow_files(folder: Path, column: str) -> list[TokenFile]:
    state = load_table(folder / "state.json")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise StageError(
            f"{folder} is a selection or shuffle of rows that lie elsewhere in its files.",
            "Write it in its order: dataset.flatten_indices().save_to_disk(...).",
        )
    with reading(folder / "state.json"):
        return [TokenFile(folder / entry["filename"], "arrow", column=column) for entry in state["_data_files"]]
