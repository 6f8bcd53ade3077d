"""Tokens that people already have, as a tokens artifact that points to their files: read once, checked, never copied.

    pretokenized.path=data/openwebtext pretokenized.vocab_size=50257 pretokenized.eos_token_id=50256

The artifact holds document boundaries and SHA-256 sums; the ids stay where they are. In between lie an order of data, a
validation split and checks like those of tokens that we encoded ourselves.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import file_digest, write_json
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import load_array
from maquette.data.config import PretokenizedConfig
from maquette.data.shards import TokenStream, folder_name, unigram_entropy
from maquette.data.token_files import Ids, TokenFile, arrow_lists, find_files, guess_format, map_file
from maquette.text import Tokenizer

TOKENIZER = "tokenizer"
"""Folder of the artifact with the tokenizer, or with what is known in its place."""

_CHUNK = 4_194_304

_MOST_HELD_OUT = 0.1
"""A document that begins before this last share of the text is cut in two rather than held out as a whole."""


@dataclasses.dataclass(frozen=True)
class _Split:
    """One split of a domain before it is cut: its files, their lengths, and where documents begin in all of them."""

    files: list[TokenFile]
    lengths: list[int]
    starts: NDArray[np.int64]
    bytes: NDArray[np.int64]

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def source_files(config: PretokenizedConfig) -> dict[str, dict[str, list[TokenFile]]]:
    """`{domain: {split: files}}` of the settings' path. Raises `StageError` where there are none."""
    path = Path(str(config.path))
    if not path.exists():
        raise StageError(f"pretokenized.path={path} does not exist.", "Give a file or a folder.")
    format = guess_format(path) if config.format == "auto" else config.format
    files = find_files(path.absolute(), format, config.column)
    if not any(splits.get("train") for splits in files.values()):
        raise StageError(
            f"{path} has no training tokens.", "Files of training are called train..., or not val or test."
        )
    return files


def seen_files(files: Mapping[str, Mapping[str, Sequence[TokenFile]]]) -> dict[str, str]:
    """Size and time of change of every file, which tell cheaply whether the artifact of these tokens is there."""
    everything = [file.path for splits in files.values() for some in splits.values() for file in some]
    return {str(path): f"{path.stat().st_size}-{path.stat().st_mtime_ns}" for path in everything}


def index_tokens(
    files: Mapping[str, Mapping[str, Sequence[TokenFile]]],
    config: PretokenizedConfig,
    tokenizer: Tokenizer,
    eos_token_id: int | None,
    folder: Path,
) -> dict[str, Any]:
    """Reads every file once and writes the artifact's files into `folder`; returns the manifest's facts.

    Raises `StageError` for a file that is empty, cut, of another dtype, or has an id beyond the vocabulary.
    """
    everything = [file for splits in files.values() for some in splits.values() for file in some]
    sums: dict[str, dict[str, Any]] = {}
    domains: dict[str, Any] = {}
    training: dict[str, TokenStream] = {}
    byte_lengths = tokenizer.byte_lengths() if tokenizer.has_text else None
    size = sum(file.path.stat().st_size for file in everything)
    with progress("reading tokens", size, unit="bytes") as advance:
        for domain, splits in files.items():
            read: dict[str, _Split] = {}
            for split, some in splits.items():
                known = [_with_dtype(file, config, tokenizer.vocab_size) for file in some]
                read[split] = _read_split(known, tokenizer.vocab_size, eos_token_id, byte_lengths)
                for file in known:
                    sums[str(file.path)] = {"bytes": file.path.stat().st_size, "sha256": file_digest(file.path)}
                    advance(file.path.stat().st_size)
            parts = _parts(read, config.validation)
            name = folder_name(domain)
            domains[domain] = {
                "folder": name,
                "splits": {
                    split: _write_split(folder / name, split, whole, first, last)
                    for split, (whole, first, last) in parts.items()
                },
            }
            training[domain] = TokenStream([part for file in read["train"].files for part in map_file(file)])
    tokenizer.save(folder / TOKENIZER)
    # Names without their folders: the same tokens elsewhere are the same tokens.
    write_json(folder / "sources.json", [[Path(path).name, entry["sha256"]] for path, entry in sums.items()])
    return {
        "tokenizer": {"name": config.tokenizer or "none", "digest": tokenizer.digest},
        "vocab_size": tokenizer.vocab_size,
        "document_id": eos_token_id,
        "dtype": everything[0].dtype,
        "domains": domains,
        "files": sums,
        "held_out": {"window": 0, "domains": {domain: {} for domain in domains}},
        "unigram_entropy": unigram_entropy(training, tokenizer.vocab_size),
    }


def _with_dtype(file: TokenFile, config: PretokenizedConfig, vocab_size: int) -> TokenFile:
    """The file with its dtype filled in, and its size checked against it."""
    if file.layout != "raw":
        if config.dtype is not None and file.layout == "npy":
            own = str(load_array(file.path, mapped=True).dtype)
            if own != config.dtype:
                raise StageError(f"{file.path} holds {own}, not pretokenized.dtype={config.dtype}.", "Leave it out.")
        return file
    dtype = file.dtype or config.dtype or ("uint16" if vocab_size <= 1 << 16 else "uint32")
    if file.dtype and config.dtype not in (None, file.dtype):
        raise StageError(f"{file.path} says in its header that it holds {file.dtype}, not {config.dtype}.")
    size, item = file.path.stat().st_size - file.offset, np.dtype(dtype).itemsize
    if size <= 0 or size % item:
        raise StageError(
            f"{file.path} has {size:,} bytes of tokens, which is not a whole number of {dtype} ({item} bytes each).",
            "It was cut, or holds another type: pretokenized.dtype=uint16 or uint32.",
        )
    return dataclasses.replace(file, dtype=dtype)


def _read_split(
    files: list[TokenFile], vocab_size: int, eos: int | None, byte_lengths: NDArray[np.int32] | None
) -> _Split:
    lengths, separators = [], [np.zeros(1, np.int64)]
    rows: list[NDArray[np.int64]] = []
    position = 0
    for file in files:
        begin = position
        for part in map_file(file):
            if part.dtype.kind not in "ui":
                raise StageError(f"{file.path} holds {part.dtype}, not token ids.", "Ids are whole numbers.")
            for chunk in _chunks(part):
                _check_ids(file, chunk, position - begin, vocab_size)
                if eos is not None:
                    separators.append(position + np.flatnonzero(chunk == eos))
                position += len(chunk)
        if position == begin:
            raise StageError(f"{file.path} holds no tokens.", "Remove the file.")
        if file.layout == "arrow":
            rows.append(begin + _row_starts(file))
        lengths.append(position - begin)
    starts = np.concatenate(separators)
    by_rows = len(starts) == 1 and bool(rows)
    if by_rows:  # no separator in the ids: the rows are the documents
        starts = np.concatenate(rows)
    # A separator at the very beginning or end, or two in a row, make no empty document.
    starts = starts[np.diff(starts, append=position) > (0 if len(starts) == 1 or by_rows else 1)]
    return _Split(files, lengths, starts, _text_bytes(files, starts, byte_lengths))


def _chunks(part: Ids) -> Iterator[Ids]:
    for start in range(0, len(part), _CHUNK):
        yield part[start : start + _CHUNK]


def _check_ids(file: TokenFile, chunk: Ids, position: int, vocab_size: int) -> None:
    wrong = chunk >= vocab_size
    if chunk.dtype.kind == "i":
        wrong |= chunk < 0
    if wrong.any():
        place = int(np.argmax(wrong))
        raise StageError(
            f"{file.path}: the id {int(chunk[place]):,} at position {position + place:,} is beyond a vocabulary of "
            f"{vocab_size:,}.",
            "Give the vocabulary of these tokens (pretokenized.vocab_size or .tokenizer), or their pretokenized.dtype.",
        )
    as_uint16 = position == 0 and file.layout == "raw" and chunk.dtype == np.uint16 and len(chunk) >= 64
    if as_uint16 and not chunk[1::2].any():
        raise StageError(
            f"{file.path}: read as uint16 every second id is 0, as in a file of uint32.",
            "Give pretokenized.dtype=uint32.",
        )


def _row_starts(file: TokenFile) -> NDArray[np.int64]:
    row_starts, begin = [], 0
    for values, starts in arrow_lists(file.path, file.column):
        row_starts.append(begin + starts)
        begin += len(values)
    return np.concatenate(row_starts)


def _text_bytes(
    files: Sequence[TokenFile], starts: NDArray[np.int64], byte_lengths: NDArray[np.int32] | None
) -> NDArray[np.int64]:
    """Bytes of text from each of the sorted `starts` to the next; zeros where what ids stand for is unknown."""
    sizes, position = np.zeros(len(starts), np.int64), 0
    if byte_lengths is None:
        return sizes
    for file in files:
        for part in map_file(file):
            for chunk in _chunks(part):
                first, last = np.searchsorted(starts, [position, position + len(chunk)], side="left")
                edges = starts[first:last] - position
                if first and not (edges.size and edges[0] == 0):  # it begins within the document before
                    first, edges = first - 1, np.append(0, edges)
                if edges.size:
                    sizes[first:last] += np.add.reduceat(byte_lengths[chunk], edges, dtype=np.int64)
                position += len(chunk)
    return sizes


def _parts(read: Mapping[str, _Split], share: float) -> dict[str, tuple[_Split, int, int]]:
    """Every split with its first and last token; the end of training text is held out where nothing else is."""
    parts = {split: (whole, 0, whole.tokens) for split, whole in read.items()}
    if "validation" not in parts and share:
        train = read["train"]
        target = train.tokens - round(share * train.tokens)
        borders = train.starts[train.starts >= target]
        border = int(borders[0] if len(borders) else train.starts[-1])
        # At the beginning of a document, unless the next one is far off.
        cut = border if 0 < train.tokens - border <= _MOST_HELD_OUT * train.tokens else target
        if 0 < cut < train.tokens:
            parts["train"], parts["validation"] = (train, 0, cut), (train, cut, train.tokens)
    return parts


def _write_split(folder: Path, split: str, whole: _Split, first: int, last: int) -> dict[str, Any]:
    """Writes the document table of tokens `first` ... `last - 1`; returns the split's part of the manifest."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    inside = (whole.starts >= first) & (whole.starts < last)
    starts, sizes = whole.starts[inside], whole.bytes[inside]
    if not len(starts) or starts[0] > first:  # the cut lies within a document
        starts, sizes = np.concatenate([[first], starts]), np.concatenate([[0], sizes])
    entries, begin = [], 0
    bounds = np.concatenate([[0], np.cumsum(whole.lengths)])
    for file, length in zip(whole.files, whole.lengths, strict=True):
        start, stop = max(first, begin), min(last, begin + length)
        if stop > start:
            entries.append(file.entry(start - begin, stop - start))
        begin += length
    place = np.searchsorted(bounds, starts, side="right") - 1
    ids = [
        f"{whole.files[index].path.name}:{start}"
        for index, start in zip(place, (starts - bounds[place]).tolist(), strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {"id": pa.array(ids, pa.string()), "start": pa.array(starts - first), "bytes": pa.array(sizes, pa.int64())}
    )
    write_table(table, folder / f"{split}.documents.parquet", compression="zstd")
    return {
        "tokens": last - first,
        "documents": len(starts),
        "bytes": int(sizes.sum()),
        "shards": entries,
        "boundaries": f"{folder.name}/{split}.documents.parquet",
    }


def describe_pretokenized(facts: Mapping[str, Any], config: PretokenizedConfig, has_text: bool) -> list[str]:
    """What was found, a line a domain, and what can't be done with it."""
    lines = [
        f"{domain}: "
        + ", ".join(
            f"{entries['tokens']:,} {split} tokens in {entries['documents']:,} documents"
            for split, entries in entry["splits"].items()
        )
        for domain, entry in facts["domains"].items()
    ]
    if facts["document_id"] is None:
        lines.append("no eos_token_id: documents are not told apart (no data.document_masking, no copying score)")
    elif all(entries["documents"] <= 1 for entry in facts["domains"].values() for entries in entry["splits"].values()):
        lines.append(f"the id {facts['document_id']} (eos_token_id) does not separate anything in these tokens")
    if not has_text:
        lines.append(
            "no tokenizer: bits per byte and samples are left out, and an export has no tokenizer "
            "(pretokenized.tokenizer=<folder with tokenizer.json>)"
        )
    return lines


def separator(config: PretokenizedConfig, tokenizer: Tokenizer) -> int | None:
    """The id between documents: that of the settings, else the tokenizer's end of text, else its document token."""
    token = config.eos_token_id
    if token is None:
        token = tokenizer.end_of_text_id if tokenizer.end_of_text_id is not None else tokenizer.document_id
    if token is not None and token >= tokenizer.vocab_size:
        raise ConfigError(
            f"pretokenized.eos_token_id={token} is beyond a vocabulary of {tokenizer.vocab_size:,}.",
            "Give the id of the token that ends a document.",
        )
    return token
