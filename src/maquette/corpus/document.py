"""A document, how its text is cleaned, and the files of a corpus.

These are `train.parquet`, `validation.parquet` and `test.parquet`, with a row a document. Rows are
sorted by domain, and no row group mixes two domains, so one domain is read without touching the others.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.reading import open_parquet, reading

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile, ParquetWriter

SPLITS = ("train", "validation", "test")
_TEXTS = ("string", "large_string", "null")

_AGAIN = "Rebuild it with: maquette corpus force=true."

_COLUMNS = ("id", "text", "url", "domain", "meta")
_ROW_GROUP_CHARACTERS = 4_000_000
_ROW_GROUP_ROWS = 10_000
_CONTROL = bytes({*range(32), 127} - {ord("\n"), ord("\t")})
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """One text. `meta` holds whatever else is known of it; `meta["group"]` names what must stay in one split."""

    id: str
    text: str
    url: str | None = None
    domain: str = "web"
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """Why a document is not kept: the rule's name, and the value that decided."""

    document: Document
    reason: str
    value: float


def normalize(document: Document) -> Document:
    """One kind of line end, no trailing spaces, no control characters; lone surrogates become U+FFFD."""
    text = document.text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) != len(text) or len(encoded.translate(None, _CONTROL)) != len(encoded):
        text = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text))
    text = text.rstrip()
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip() for line in text.split("\n"))
    text = text.strip("\n")
    return document if text == document.text else dataclasses.replace(document, text=text)


def clean(document: Document, minimum_characters: int) -> Document | Rejection:
    """The document normalised, or its rejection where it is shorter than `minimum_characters`."""
    document = normalize(document)
    size = len(document.text)
    return document if size >= minimum_characters else Rejection(document, "too short", size)


class DocumentWriter:
    """Writes documents to one Parquet file (zstd), a row group whenever the domain changes or enough has come together.

    The same documents in the same order give the same bytes.
    """

    def __init__(self, path: Path | str, *, checksums: bool = False) -> None:
        """`checksums`: of each page, for a file that no manifest has the digest of."""
        self.path, self._checksums = Path(path), checksums
        self._pending: list[Document] = []
        self._characters = 0
        self._writer: ParquetWriter | None = None

    def __enter__(self) -> "DocumentWriter":
        from pyarrow.parquet import ParquetWriter

        self._writer = ParquetWriter(self.path, _schema(), compression="zstd", write_page_checksum=self._checksums)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            if self._writer is not None:
                self._writer.close()

    def write(self, document: Document) -> None:
        """Adds one document."""
        if self._pending and self._pending[-1].domain != document.domain:
            self._flush()
        self._pending.append(document)
        self._characters += len(document.text)
        if self._characters >= _ROW_GROUP_CHARACTERS or len(self._pending) >= _ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending or self._writer is None:
            return
        rows = [
            (one.id, one.text, one.url, one.domain, json.dumps(one.meta, ensure_ascii=False, sort_keys=True))
            for one in self._pending
        ]
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        self._writer.write_table(pa.table(columns, schema=_schema()))
        self._pending, self._characters = [], 0


def write_documents(path: Path | str, documents: Iterable[Document], *, checksums: bool = True) -> None:
    """Writes all `documents`, in their order, to one Parquet file; `checksums`: see `DocumentWriter`."""
    with DocumentWriter(path, checksums=checksums) as writer:
        for document in documents:
            writer.write(document)


def read_documents(folder: Path | str, split: str = "train", domain: str | None = None) -> Iterator[Document]:
    """Streams the documents of one split of a corpus artifact, of one domain or of all, in their stable order.

    Raises `StageError` where the split's file is missing or damaged.
    """
    yield from read_file(_split_path(folder, split), domain)


def read_file(path: Path | str, domain: str | None = None) -> Iterator[Document]:
    """Streams the documents of one corpus file."""
    file = _open(Path(path))
    with reading(path, hint=_AGAIN):
        for group in range(file.num_row_groups):
            if domain is not None and _domain_of(file, group) != domain:
                continue
            for batch in file.iter_batches(batch_size=256, row_groups=[group], columns=list(_COLUMNS)):
                for row in batch.to_pylist():
                    yield Document(row["id"], row["text"], row["url"], row["domain"], json.loads(row["meta"]))


def domains(folder: Path | str, split: str = "train") -> list[str]:
    """The domains that have documents in a split, sorted."""
    file = _open(path := _split_path(folder, split))
    with reading(path, hint=_AGAIN):
        return sorted({_domain_of(file, group) for group in range(file.num_row_groups)})


def _schema() -> "pa.Schema":
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in _COLUMNS])


def _split_path(folder: Path | str, split: str) -> Path:
    if split not in SPLITS:
        raise StageError(f"A corpus has no split '{split}'.", f"It has {', '.join(SPLITS)}.")
    return Path(folder) / f"{split}.parquet"


def _open(path: Path) -> "ParquetFile":
    if not path.exists():
        raise StageError(f"{path} is missing.", "Make the corpus with: maquette corpus.")
    file = open_parquet(path, hint=_AGAIN)
    missing = [name for name in _COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise StageError(f"{path} is not a corpus file: it has no column '{missing[0]}'.", "Give a corpus artifact.")
    other = [one.name for one in file.schema_arrow if one.name in _COLUMNS and str(one.type) not in _TEXTS]
    if other:  # pages have checksums, what stands at a Parquet file's end has none
        raise StageError(f"{path} is damaged: its column '{other[0]}' does not hold texts.", _AGAIN)
    return file


def _domain_of(file: "ParquetFile", group: int) -> str:
    column = file.schema_arrow.get_field_index("domain")
    return str(file.metadata.row_group(group).column(column).statistics.max)
