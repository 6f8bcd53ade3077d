"""Documents from files of one's own (JSON lines, Parquet, texts) and from data sets of the package `datasets`.

`source.path` is a file or a folder, or the name of a data set on the Hugging Face hub.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import open_parquet, reading
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources import columns_read, document_from_row, domain_name, say_unread
from maquette.corpus.sources.files import FileSource, read_whole, relative_name
from maquette.corpus.sources.row_files import DataSetRows, read_rows
from maquette.corpus.workers import Workers

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_ROWS = 512  # of a Parquet file at once
_HEAD = 8192  # bytes of a text file in which null bytes are looked for
_LOOKED_AT = 1000  # files after one that is not UTF-8 in which the same is looked for


class JsonLines(FileSource):
    """A document a line, also compressed (.gz, .zst); blank lines are passed over. A line that can't be read stops the
    reading, by its number."""

    suffixes = (".jsonl", ".ndjson")
    what = "JSON lines"

    def _documents(self) -> Iterator[Document]:
        unread, known = set[str](), columns_read(self._config)
        try:
            for where, row in read_rows(self._files, "documents"):
                unread |= row.keys() - known
                yield document_from_row(row, self._config, where)
        finally:  # also where no more are asked for
            say_unread(unread, self._root)


class Parquet(FileSource):
    """A document a row: the files are streamed batch by batch, and of their columns only those that a document has."""

    suffixes = (".parquet", ".pq")
    what = "Parquet"

    def _documents(self) -> Iterator[Document]:
        hint = "It is damaged, was cut off, or is not a Parquet file."
        files = [(path, open_parquet(path, hint=hint)) for path in self._files]
        names = {name for _, file in files for name in file.schema_arrow.names}
        say_unread(names - columns_read(self._config), self._root)
        with progress("reading", sum(file.metadata.num_rows for _, file in files), unit="rows") as advance:
            for path, file in files:
                number = 0
                for rows in self._batches(path, file):
                    for row in rows:
                        number += 1
                        yield document_from_row(row, self._config, f"{path}, row {number}")
                    advance(len(rows))

    def _batches(self, path: Path, file: "ParquetFile") -> Iterator[list[dict[str, Any]]]:
        names = file.schema_arrow.names
        known = columns_read(self._config)
        # Without the text all columns are read, so that the error can name them.
        columns = [name for name in names if name in known] if self._config.text_field in names else names
        with reading(path, hint="Get the file again."):
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                yield batch.to_pylist()


class TextFiles(FileSource):
    """A document a file, in UTF-8; the first folder below is its domain. A file with null bytes is not a text and is
    passed over."""

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config)
        self._binary: list[str] = []

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"not_text": self._binary}

    def _documents(self) -> Iterator[Document]:
        self._binary = []
        with progress("reading", len(self._files), unit="files") as advance:
            for number, file in enumerate(self._files, 1):
                advance(1)
                content = read_whole(file)
                name = relative_name(file, self._root)
                if b"\0" in content[:_HEAD]:
                    self._binary.append(name)
                    continue
                folder = name.partition("/")[0] if "/" in name else ""
                text = _decode(content, file, self._files[number:])
                yield Document(name, text, None, domain_name(folder, self._config.domain))


def _decode(content: bytes, file: Path, later: Sequence[Path]) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        others = [str(path) for path in later[:_LOOKED_AT] if not _is_text(read_whole(path))]
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        others_too = f" Not UTF-8 either: {', '.join(others[:5])}{more}." if others else ""
        raise StageError(
            f"{file}, line {line} is not UTF-8: byte {error.start + 1} of the file is 0x{content[error.start]:02x}."
            + others_too,
            f"Convert {'them' if others else 'the file'}, for example with: iconv -f latin1 -t utf-8.",
        ) from None


def _is_text(content: bytes) -> bool:
    """Whether it is UTF-8, or no text at all and so passed over."""
    if b"\0" in content[:_HEAD]:
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


class HuggingFace:
    """Streams one split of a data set: `source.limit` saves the download of the rest."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._data_set = DataSetRows(config.path or "", config.subset, config.split, "source")
        self.label = self._data_set.label

    def inputs(self) -> dict[str, str]:
        return self._data_set.inputs()

    def documents(self, workers: Workers) -> Iterator[Document]:
        return itertools.islice(self._documents(), self._config.limit)

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "huggingface",
            "path": self._config.path or "",
            "subset": self._config.subset,
            "split": self._config.split,
            "version": self._data_set.version,
        }

    def _documents(self) -> Iterator[Document]:
        unread, known = set[str](), columns_read(self._config)
        try:
            with progress("reading", self._config.limit, unit="rows") as advance:
                for where, row in self._data_set.rows():
                    advance(1)
                    unread |= row.keys() - known
                    yield document_from_row(row, self._config, where)
        finally:  # also where no more are asked for
            say_unread(unread, self._data_set.name)
