"""Documents from JSON lines: a file or a folder of `.jsonl` (or `.ndjson`) files, also compressed (.gz, .zst)."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import progress
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.base import document_from_row
from maquette.corpus.sources.compression import read_lines
from maquette.corpus.sources.files import digest_files, list_files, source_root
from maquette.corpus.workers import Workers


class JsonLines:
    """One document a line; blank lines are passed over. A line that can't be read stops the reading, by its number."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._root, self.label = source_root(config)
        self._files = list_files(self._root, (".jsonl", ".ndjson"), "JSON lines")

    def inputs(self) -> dict[str, str]:
        return {"files": digest_files(self._files, self._root)}

    def documents(self, workers: Workers) -> Iterator[Document]:
        return itertools.islice(self._documents(), self._config.limit)

    def facts(self) -> dict[str, Any]:
        return {"kind": "jsonl", "path": str(self._root), "files": len(self._files)}

    def _documents(self) -> Iterator[Document]:
        with progress("reading", sum(file.stat().st_size for file in self._files), unit="bytes") as advance:
            for file in self._files:
                for number, line in read_lines(file, advance):
                    if line.strip():
                        where = f"{file}, line {number}"
                        yield document_from_row(_parse(line, where), self._config, where)


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise StageError(
            f"{where} is not UTF-8: byte {error.start + 1} of the line is 0x{line[error.start]:02x}.",
            "Convert the file, for example with: iconv -f latin1 -t utf-8.",
        ) from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise StageError(f"{where} is not JSON: {error}.", "Repair or remove the line.") from None
    if not isinstance(row, dict):
        raise StageError(f"{where} is not a JSON object.", 'A row looks like {"text": "..."}.')
    return row
