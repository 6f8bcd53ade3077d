"""Documents from a folder of text files: one a file; the first folder below is the domain."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import progress
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.base import domain_name
from maquette.corpus.sources.compression import read_whole
from maquette.corpus.sources.files import digest_files, list_files, relative_name, source_root
from maquette.corpus.workers import Workers

_HEAD = 8192


class TextFiles:
    """Every file below the folder (or one file), in UTF-8; a file with null bytes is no text and is passed over."""

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._root, self.label = source_root(config)
        self._files = list_files(self._root, None, "text")
        self._binary: list[str] = []

    def inputs(self) -> dict[str, str]:
        return {"files": digest_files(self._files, self._root)}

    def documents(self, workers: Workers) -> Iterator[Document]:
        self._binary = []
        return itertools.islice(self._documents(), self._config.limit)

    def facts(self) -> dict[str, Any]:
        return {"kind": "text", "path": str(self._root), "files": len(self._files), "not_text": self._binary}

    def _documents(self) -> Iterator[Document]:
        with progress("reading", len(self._files), unit="files") as advance:
            for file in self._files:
                advance(1)
                content = read_whole(file)
                name = relative_name(file, self._root)
                if b"\0" in content[:_HEAD]:
                    self._binary.append(name)
                    continue
                folder = name.partition("/")[0] if "/" in name else ""
                yield Document(name, _decode(content, file), None, domain_name(folder, self._config.domain))


def _decode(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StageError(
            f"{file}, line {line} is not UTF-8: byte {error.start + 1} of the file is 0x{content[error.start]:02x}.",
            "Convert the file, for example with: iconv -f latin1 -t utf-8.",
        ) from None
