"""Files opened whether compressed or not; a damaged or cut one is an error, never a shorter text."""

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from maquette.artifacts.errors import StageError

SUFFIXES = (".gz", ".zst")

Value = TypeVar("Value")


@contextlib.contextmanager
def open_bytes(file: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Opens a file for reading, through gzip or Zstandard where its name says so: the stream, and the raw file below.

    Raises `StageError` where the file can't be opened or its compression is not installed.
    """
    with readable(file, lambda path: path.open("rb")) as raw:
        if file.suffix.lower() == ".gz":
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast(IO[bytes], stream), raw
        elif file.suffix.lower() == ".zst":
            yield cast(IO[bytes], io.BufferedReader(_ZstandardReader(raw, file))), raw
        else:
            yield raw, raw


def read_lines(file: Path, advance: Callable[[float], None]) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, numbered from 1, without their ends. Calls `advance` with compressed bytes read.

    Raises `StageError` where a compressed file is damaged or cut off.
    """
    number = told = 0
    with open_bytes(file) as (stream, raw):
        while True:
            try:
                line = stream.readline()
            except _damaged() as error:
                raise StageError(
                    f"{file} can't be decompressed after line {number}: {error}.",
                    "It is damaged or was cut off: get it anew.",
                ) from None
            if number % 256 == 0 or not line:
                advance(raw.tell() - told)
                told = raw.tell()
            if not line:
                return
            number += 1
            yield number, line.rstrip(b"\r\n")


def read_whole(file: Path) -> bytes:
    """The (decompressed) bytes of a file. Raises `StageError` where it is damaged or can't be read."""
    with open_bytes(file) as (stream, _):
        try:
            return stream.read()
        except _damaged() as error:
            raise StageError(f"{file} can't be read: {error}.", "It is damaged or was cut off: get it anew.") from None


def readable(file: Path, read: Callable[[Path], Value]) -> Value:
    """What `read` makes of a file. Raises `StageError` where the operating system forbids it."""
    try:
        return read(file)
    except OSError as error:
        raise StageError(f"{file} can't be read: {error.strerror}.", "Check the file's permissions.") from None


class _ZstandardReader(io.RawIOBase):
    """Frame after frame. The package's own reader takes a file that was cut off for one that ends there."""

    def __init__(self, raw: IO[bytes], file: Path) -> None:
        try:
            import zstandard
        except ImportError:
            raise StageError(
                f"{file} is Zstandard-compressed, which needs the package zstandard.",
                'Install it with: pip install "maquette-lm[curation]".',
            ) from None
        self._raw = raw
        self._start: Callable[[], Any] = zstandard.ZstdDecompressor().decompressobj
        self._frame: Any = None
        self._waiting = b""  # compressed bytes after the end of a frame
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._waiting or self._raw.read(1 << 17)
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the file ends before the end of a frame")
                return 0
            self._frame = self._frame or self._start()
            self._ready = memoryview(self._frame.decompress(chunk))
            self._waiting = b""
            if self._frame.eof:
                self._waiting, self._frame = self._frame.unused_data, None
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def _damaged() -> tuple[type[Exception], ...]:
    errors: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error)
    try:
        import zstandard
    except ImportError:
        return errors
    return (*errors, zstandard.ZstdError)
