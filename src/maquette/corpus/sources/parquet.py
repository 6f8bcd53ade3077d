"""Documents from a Parquet file or a folder of them: one a row."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import progress
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.base import document_from_row
from maquette.corpus.sources.files import digest_files, list_files, source_root
from maquette.corpus.workers import Workers

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_ROWS = 512


class Parquet:
    """Streams the files batch by batch, and of their columns only those that a document has."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._root, self.label = source_root(config)
        self._files = list_files(self._root, (".parquet", ".pq"), "Parquet")

    def inputs(self) -> dict[str, str]:
        return {"files": digest_files(self._files, self._root)}

    def documents(self, workers: Workers) -> Iterator[Document]:
        return itertools.islice(self._documents(), self._config.limit)

    def facts(self) -> dict[str, Any]:
        return {"kind": "parquet", "path": str(self._root), "files": len(self._files)}

    def _documents(self) -> Iterator[Document]:
        files = [(path, _open(path)) for path in self._files]
        with progress("reading", sum(file.metadata.num_rows for _, file in files), unit="rows") as advance:
            for path, file in files:
                number = 0
                for rows in self._batches(path, file):
                    for row in rows:
                        number += 1
                        yield document_from_row(row, self._config, f"{path}, row {number}")
                    advance(len(rows))

    def _batches(self, path: Path, file: "ParquetFile") -> Iterator[list[dict[str, Any]]]:
        import pyarrow as pa

        names = file.schema_arrow.names
        wanted = {self._config.text_field, self._config.domain_field, "id", "url", "meta"}
        # Without the text all columns are read, so that the error can name them.
        columns = [name for name in names if name in wanted] if self._config.text_field in names else names
        try:
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                yield batch.to_pylist()
        except UnicodeDecodeError as error:
            raise StageError(f"{path} holds text that is not UTF-8: {error}.", "Write the file anew.") from None
        except (pa.ArrowException, OSError) as error:
            raise StageError(f"{path} is damaged: {error}.", "Get the file anew.") from None


def _open(path: Path) -> "ParquetFile":
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise StageError(f"{path} is not a Parquet file: {error}.", "It is damaged or was cut off.") from None
