"""Files that documents are read from: listed in a stable order, digested, and opened whether compressed or not.

A damaged or cut file is an error, never a shorter text.
"""

import abc
import contextlib
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar, cast

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import digest, file_digest, listed
from maquette.artifacts.progress import progress
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources import domain_name
from maquette.corpus.workers import Workers

SUFFIXES = (".gz", ".zst")

_DAMAGED = (EOFError, OSError, zlib.error)

Value = TypeVar("Value")


class FileSource(abc.ABC):
    """The files below a folder (or one file) with one of `suffixes`; `_documents` reads them."""

    suffixes: ClassVar[tuple[str, ...] | None] = None
    what: ClassVar[str] = "text"

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        self._root = Path(config.path or ".").expanduser()
        self.label = f"{config.kind}-{domain_name(self._root.resolve().name.partition('.')[0])}"
        self._files = list_files(self._root, self.suffixes, self.what)

    def inputs(self) -> dict[str, str]:
        return {"files": digest_files(self._files, self._root)}

    def documents(self, workers: Workers) -> Iterator[Document]:
        return itertools.islice(self._documents(), self._config.limit)

    def facts(self) -> dict[str, Any]:
        return {"kind": self._config.kind, "path": str(self._root), "files": len(self._files)}

    @abc.abstractmethod
    def _documents(self) -> Iterator[Document]:
        """All documents of the files, in their order."""


def list_files(path: Path, suffixes: tuple[str, ...] | None, what: str) -> list[Path]:
    """The file `path`, or all files below the folder `path` with one of `suffixes` (perhaps compressed; None: all).

    Sorted by their path below the folder; hidden ones are left out. Raises `StageError` where there are none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise StageError(f"{path} does not exist.", "Check source.path.")
    files = [file for file in listed(path, "**/*") if file.is_file()]
    chosen = [file for file in files if suffixes is None or plain_name(file).endswith(suffixes)]
    if not chosen:
        endings = ", ".join(sorted({file.suffix or file.name for file in files})[:8]) or "nothing"
        allowed = " or ".join(suffixes) if suffixes else "any"
        raise StageError(f"{path} has no {what} files ({allowed}); it has {endings}.", "Check source.path and source.")
    return sorted(chosen, key=lambda file: relative_name(file, path))


def relative_name(file: Path, root: Path) -> str:
    """The file's path below `root`, with slashes; its name where it is the root."""
    return file.relative_to(root).as_posix() if file != root else file.name


def plain_name(file: Path) -> str:
    """The name in lower case, without the ending of a compressed file."""
    name = file.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def digest_files(files: list[Path], root: Path) -> str:
    """One digest of the names and contents of `files`: changes when any of them does, and not when they are moved."""
    contents = {}
    with progress("checking the files", sum(file.stat().st_size for file in files), unit="bytes") as advance:
        for file in files:
            contents[relative_name(file, root)] = readable(file, file_digest)
            advance(file.stat().st_size)
    return digest(contents)


@contextlib.contextmanager
def open_bytes(file: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Opens a file for reading, through gzip or Zstandard where its name says so: the stream, and the raw file below.

    Raises `StageError` where the file can't be opened. Arrow reads Zstandard frame after frame; the package zstandard
    takes a file that was cut off for one that ends there.
    """
    with readable(file, lambda path: path.open("rb")) as raw:
        if file.suffix.lower() == ".gz":
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast(IO[bytes], stream), raw
        elif file.suffix.lower() == ".zst":
            import pyarrow as pa

            stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
            yield cast(IO[bytes], io.BufferedReader(stream)), raw
        else:
            yield raw, raw


def read_lines(file: Path, advance: Callable[[float], None]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered from 1, without their ends. Calls `advance` with compressed bytes read.

    Raises `StageError` where a compressed file is damaged or cut off.
    """
    number = shown = 0
    with open_bytes(file) as (stream, raw):
        while True:
            try:
                line = stream.readline()
            except _DAMAGED as error:
                raise StageError(
                    f"{file} can't be decompressed after line {number}: {error}.",
                    "It is damaged or was cut off: get it again.",
                ) from None
            if number % 256 == 0 or not line:
                advance(raw.tell() - shown)
                shown = raw.tell()
            if not line:
                return
            number += 1
            yield number, line.rstrip(b"\r\n")


def read_whole(file: Path) -> bytes:
    """The (decompressed) bytes of a file. Raises `StageError` where it is damaged or can't be read."""
    with open_bytes(file) as (stream, _):
        try:
            return stream.read()
        except _DAMAGED as error:
            raise StageError(f"{file} can't be read: {error}.", "It is damaged or was cut off: get it again.") from None


def readable(file: Path, read: Callable[[Path], Value]) -> Value:
    """What `read` makes of a file. Raises `StageError` where the operating system forbids it."""
    try:
        return read(file)
    except OSError as error:
        raise StageError(f"{file} can't be read: {error.strerror}.", "Check the file's permissions.") from None
