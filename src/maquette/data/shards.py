"""Token shards: every token of a domain's split in .npy files that are memory-mapped, checked before the first read.

A tokens artifact holds, for each domain and split, `<domain>/<split>-00000.npy` ... (uint16 where the vocabulary
allows, else uint32) and `<domain>/<split>.documents.parquet` (id, start and bytes of text of each document). A
document is the document token and then its own tokens; one that does not fit goes on in the next shard. Of tokens that
were there already (pretokenized.py) the artifact has the boundaries only, and says in which files the ids lie.
"""

import bisect
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.artifacts.files import digest, read_json, write_json
from maquette.artifacts.manifest import Manifest, read_manifest, rebuild_advice, verify_files
from maquette.artifacts.reading import load_array, open_parquet, reading
from maquette.data.token_files import map_entry

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile, ParquetWriter

Tokens = NDArray[np.unsignedinteger]

REMEMBER_BYTES = 256 * 2**20
"""Larger artifacts are hashed in full once; then a stamp beside them remembers each file's size and time of change."""

_STAMP = ".verified.json"

_PIECE_TOKENS = 131_072
_SAMPLE_TOKENS = 4 * 1024 * 1024

MOST_MAPS = 1000
"""Files of one split that are mapped at once. Linux allows a process 65,530 maps, and a trillion tokens in shards of
2^24 are 60,000 files."""


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """The smaller of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def folder_name(domain: str) -> str:
    """A domain's name as that of a folder: unchanged where it is plain, else made plain and told apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", domain).strip(".-")[:80]
    return (
        domain if domain == plain == plain.lower() and domain else f"{plain or 'domain'}-{digest(domain)[:8]}".lower()
    )


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedDocument:
    """A document's own tokens (n,), without the document token, and the bytes of text they stand for."""

    id: str
    tokens: Tokens
    bytes: int


@dataclasses.dataclass(frozen=True)
class DocumentTable:
    """The documents of one split of a domain, in their order: ids, first tokens (n,) and bytes of text (n,)."""

    ids: list[str]
    starts: NDArray[np.int64]
    bytes: NDArray[np.int64]


class TokenStream:
    """The tokens of consecutive files as one row. `lengths` of the parts, where these are still to be opened."""

    def __init__(self, parts: Sequence[Tokens], lengths: Iterable[int] | None = None) -> None:
        self._parts = parts
        self._offsets = [0, *itertools.accumulate(map(len, parts) if lengths is None else lengths)]

    def __len__(self) -> int:
        return self._offsets[-1]

    def __getitem__(self, place: slice) -> Tokens:
        start, stop, _ = place.indices(len(self))
        return self.read(start, max(0, stop - start))

    def read(self, start: int, length: int) -> Tokens:
        """Tokens `start` ... `start + length - 1`: a view where they lie in one file.

        Raises `IndexError` past the end.
        """
        if start < 0 or length < 0 or start + length > self._offsets[-1]:
            raise IndexError(f"tokens {start:,} to {start + length:,} of {len(self):,}")
        part = bisect.bisect_right(self._offsets, start) - 1
        pieces: list[Tokens] = []
        while length > 0:
            offset = start - self._offsets[part]
            piece = self._parts[part][offset : offset + length]
            if len(piece) == length and not pieces:
                return piece
            pieces.append(piece)
            start, length, part = start + len(piece), length - len(piece), part + 1
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint16)

    def pieces(self, length: int, overlap: int = 0) -> Iterator[Tokens]:
        """All tokens in pieces of at most `length`, each beginning with the last `overlap` tokens of the one before."""
        for start in range(0, max(min(1, len(self)), len(self) - overlap), length - overlap):
            yield self.read(start, min(length, len(self) - start))


class ShardWriter:
    """Writes one split of one domain; holds one shard in memory. `document_id` is put before each document."""

    def __init__(
        self, folder: Path, split: str, dtype: np.dtype[np.unsignedinteger], document_id: int, shard_tokens: int
    ) -> None:
        self._folder, self._split, self._document_id = folder, split, document_id
        self._buffer = np.empty(shard_tokens, dtype=dtype)
        self._filled = 0
        self._shards: list[dict[str, Any]] = []
        self._rows: list[tuple[str, int, int]] = []
        self._table: ParquetWriter | None = None
        self.tokens = self.documents = self.bytes = 0

    def add(self, document: EncodedDocument) -> None:
        """Adds one document."""
        self._rows.append((document.id, self.tokens, document.bytes))
        self._put(np.array([self._document_id], dtype=self._buffer.dtype))
        self._put(document.tokens)
        self.documents += 1
        self.bytes += document.bytes
        if len(self._rows) >= 10_000:
            self._write_rows()

    def close(self) -> dict[str, Any]:
        """Writes what is left; returns the split's part of the manifest. Paths are relative to the artifact."""
        if self._filled or not self._shards:
            self._write_shard()
        self._write_rows()
        if self._table is not None:
            self._table.close()
        return {
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
            "shards": self._shards,
            "boundaries": f"{self._folder.name}/{self._split}.documents.parquet",
        }

    def _put(self, tokens: Tokens) -> None:
        self.tokens += len(tokens)
        while len(tokens):
            taken = tokens[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            tokens = tokens[len(taken) :]
            if self._filled == len(self._buffer):
                self._write_shard()

    def _write_shard(self) -> None:
        path = self._folder / f"{self._split}-{len(self._shards):05d}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        tokens = self._buffer[: self._filled]
        with path.open("wb") as file:  # not np.save: on a full disk its error does not say so
            header = np.lib.format.header_data_from_array_1_0(tokens)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(tokens.data)
        self._shards.append({"file": f"{self._folder.name}/{path.name}", "tokens": self._filled})
        self._filled = 0

    def _write_rows(self) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        schema = pa.schema([("id", pa.string()), ("start", pa.int64()), ("bytes", pa.int64())])
        if self._table is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._table = ParquetWriter(self._folder / f"{self._split}.documents.parquet", schema, compression="zstd")
        columns = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        self._table.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))
        self._rows = []


class TokenShards:
    """A tokens artifact, open for reading.

    Opening checks every file against its checksum and, where `tokenizer_digest` is given, that the tokens are that
    tokenizer's. Raises `StageError` that names the file which is missing, short or changed, or the tokenizer.
    """

    def __init__(self, folder: Path | str, tokenizer_digest: str | None = None, *, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        if self.manifest.kind != "tokens":
            raise StageError(
                f"{self.folder} holds {self.manifest.kind}, not tokens.", "Make tokens with: maquette tokens."
            )
        facts = self.manifest.facts
        self.tokenizer_digest: str = facts["tokenizer"]["digest"]
        if tokenizer_digest is not None and tokenizer_digest != self.tokenizer_digest:
            raise StageError(
                f"{self.folder} was encoded with the tokenizer {facts['tokenizer']['name']} "
                f"({self.tokenizer_digest[:8]}), not with this one ({tokenizer_digest[:8]}).",
                "Encode the corpus with this tokenizer: maquette tokens.",
            )
        if verify:
            _verify(self.folder, dataclasses.replace(self.manifest, files=self.manifest.files | facts.get("files", {})))
        self.document_id: int | None = facts["document_id"]
        self.vocab_size: int = facts["vocab_size"]
        self._domains: dict[str, Any] = facts["domains"]
        self._streams: dict[tuple[str, str], TokenStream] = {}
        self._tables: dict[tuple[str, str], DocumentTable] = {}
        self._row_groups: dict[tuple[str, str], tuple[ParquetFile, list[tuple[int, int]]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:  # a reading process maps the files itself; they have been checked
        return functools.partial(TokenShards, verify=False), (self.folder,)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of all domains, sorted."""
        return tuple(sorted(self._domains))

    @property
    def digest(self) -> str:
        """Digest of every token and document boundary."""
        return self.manifest.digest

    def tokens(self, split: str = "train") -> dict[str, int]:
        """Tokens of each domain in a split (document tokens included); 0 where it has none."""
        return {domain: self._split(domain, split).get("tokens", 0) for domain in self.domains}

    def text_bytes(self, split: str = "train") -> dict[str, int]:
        """Bytes of text of each domain in a split."""
        return {domain: self._split(domain, split).get("bytes", 0) for domain in self.domains}

    def stream(self, domain: str, split: str = "train") -> TokenStream:
        """All tokens of one split of a domain, memory-mapped."""
        if (domain, split) not in self._streams:
            self._streams[domain, split] = open_stream(self.folder, self._split(domain, split))
        return self._streams[domain, split]

    def read(self, domain: str, split: str, start: int, length: int) -> Tokens:
        """Tokens `start` ... `start + length - 1` of one split of a domain."""
        return self.stream(domain, split).read(start, length)

    def documents(self, domain: str, split: str = "train") -> DocumentTable:
        """Every document of one split of a domain: its id, its first token, its bytes of text."""
        if (domain, split) not in self._tables:
            path, hint = self.folder / self._split(domain, split)["boundaries"], rebuild_advice(self.folder)
            with reading(path, hint=hint):
                table = open_parquet(path, hint=hint).read()
                self._tables[domain, split] = DocumentTable(
                    table["id"].to_pylist(), table["start"].to_numpy(), table["bytes"].to_numpy()
                )
        return self._tables[domain, split]

    def document_ids(self, domain: str, split: str, start: int, length: int) -> list[str]:
        """The ids of the documents that tokens `start` ... `start + length - 1` belong to. Of the table only the rows
        around them are read: of a billion documents it would not fit into memory."""
        path, hint = self.folder / self._split(domain, split)["boundaries"], rebuild_advice(self.folder)
        places = [start, start + length - 1]
        with reading(path, hint=hint):
            if (domain, split) not in self._row_groups:
                file = open_parquet(path, hint=hint)
                self._row_groups[domain, split] = file, _first_starts(file)
            file, groups = self._row_groups[domain, split]
            first, last = (bisect.bisect_right(groups, (place, file.num_row_groups)) for place in places)
            rows = file.read_row_groups([number for _, number in groups[first - 1 : last]], columns=["id", "start"])
        first, last = np.searchsorted(rows["start"].to_numpy(), places, side="right") - 1
        ids: list[str] = rows["id"].slice(first, last + 1 - first).to_pylist()
        return ids

    def _split(self, domain: str, split: str) -> dict[str, Any]:
        if domain not in self._domains:
            raise StageError(f"{self.folder} has no domain {domain!r}.", f"Domains: {', '.join(self.domains)}.")
        entry: dict[str, Any] = self._domains[domain]["splits"].get(split, {})
        return entry


def _first_starts(file: "ParquetFile") -> list[tuple[int, int]]:
    """First token and number of each of a document table's row groups, in order."""
    column, groups = file.schema_arrow.get_field_index("start"), range(file.num_row_groups)
    described = ((file.metadata.row_group(number), number) for number in groups)
    return [(group.column(column).statistics.min, number) for group, number in described if group.num_rows]


def open_stream(folder: Path, split: Mapping[str, Any]) -> TokenStream:
    """Maps the files of one split (an entry of the manifest's facts) into memory, as one row of tokens; of more than
    `MOST_MAPS` each when it is read. Raises `StageError` for a file that does not hold what the manifest says."""
    shards = split.get("shards", [])
    maps = ShardMaps(folder, shards)
    if len(shards) <= MOST_MAPS:
        for number in range(len(shards)):
            maps[number]
    return TokenStream(maps, [shard["tokens"] for shard in shards])


class ShardMaps(Sequence[Any]):
    """The files of a split by their number, of which the `MOST_MAPS` that were read last are mapped."""

    def __init__(self, folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
        self._folder, self._shards = folder, shards
        self._mapped = functools.lru_cache(MOST_MAPS)(self._map)

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, number: Any) -> Any:
        return self._mapped(number)

    def _map(self, number: int) -> Any:
        shard = self._shards[number]
        if "layout" in shard:  # a file that somebody else wrote, read where it lies
            parts = map_entry(shard)
            return parts[0] if len(parts) == 1 else TokenStream(parts)
        path, hint = self._folder / shard["file"], rebuild_advice(self._folder)
        # The plain view of the mapped file reads faster than numpy's own memmap class; an empty file can't be mapped.
        tokens = load_array(path, mapped=shard["tokens"] > 0, hint=hint)
        if tokens.shape != (shard["tokens"],):
            raise StageError(f"{path} does not hold the tokens of its manifest.", hint)
        return tokens


def _verify(folder: Path, manifest: Manifest) -> None:
    """Checks every file's checksum; of a large artifact only where size or time of change differ from the last time."""
    if sum(entry["bytes"] for entry in manifest.files.values()) < REMEMBER_BYTES:
        verify_files(folder, manifest)
        return
    stamp = folder / _STAMP
    known = read_json(stamp)
    known = known if isinstance(known, dict) else {}
    changed = {name: entry for name, entry in manifest.files.items() if known.get(name) != _seen(folder / name, entry)}
    if changed:
        verify_files(folder, dataclasses.replace(manifest, files=changed))
        try:
            write_json(stamp, {name: _seen(folder / name, entry) for name, entry in manifest.files.items()})
        except StageError:
            return  # a read-only artifact is hashed each time


def _seen(path: Path, entry: dict[str, Any]) -> list[Any]:
    status = path.stat() if path.is_file() else None
    return [entry["sha256"], status.st_size if status else None, status.st_mtime_ns if status else None]


def unigram_entropy(
    training: Mapping[str, TokenStream], vocab_size: int, weights: Mapping[str, float] | None = None
) -> float:
    """Nats per token of the training text under its own token frequencies: the loss of a model that knows no more.

    `training`: the text of each domain. Domains count by their tokens, as in the mixture `proportional`, or by their
    `weights`; then at most four million tokens of each are read, evenly. Document tokens count too, as they do in the
    loss.
    """
    share = np.zeros(vocab_size)
    for domain, stream in training.items():
        if weights is None:
            share += _counts(stream.pieces(_PIECE_TOKENS), vocab_size)
        elif weights.get(domain, 0.0) > 0 and len(stream):
            starts = range(0, len(stream), _PIECE_TOKENS * -(-len(stream) // _SAMPLE_TOKENS))
            pieces = (stream.read(start, min(_PIECE_TOKENS, len(stream) - start)) for start in starts)
            counts = _counts(pieces, vocab_size)
            share += weights[domain] * counts / counts.sum()
    share = share[share > 0] / share.sum()
    return float(-(share * np.log(share)).sum())


def _counts(pieces: Iterable[Tokens], vocab_size: int) -> np.ndarray:
    return sum((np.bincount(piece, minlength=vocab_size) for piece in pieces), np.zeros(vocab_size, np.int64))
