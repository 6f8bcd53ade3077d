"""Writing so that a crash leaves the old file or the new one, never half of either; and digests of what is there."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or put the results elsewhere with outputs=<folder>.",
    errno.EDQUOT: "The disk quota is used up: free some space, or put the results elsewhere with outputs=<folder>.",
    errno.EROFS: "The file system is read-only: put the results elsewhere with outputs=<folder>.",
    errno.EACCES: "There is no permission to write there: put the results elsewhere with outputs=<folder>.",
    errno.EPERM: "There is no permission to write there: put the results elsewhere with outputs=<folder>.",
    errno.ENOTDIR: "A part of the path is a file, not a folder: choose another outputs=<folder>.",
}


def explain_os_error(error: OSError, path: Path | str) -> StageError:
    """One line for people from an operating system's error, with what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StageError(f"Can't write {path}: {reason}.", _HINTS.get(error.errno or 0, ""))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed and renamed to `path`, else removed.

    Raises `StageError` where the disk is full or can't be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Atomically writes UTF-8 text."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Atomically writes indented JSON with a stable key order as given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def append_rows(path: Path | str, rows: Iterable[Any]) -> None:
    """Adds a JSON line for each row, on the disk when this returns: all of them or (where the disk is full) none.

    Raises `StageError` where the file can't be written.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            size = file.tell()
            try:
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, size)
                raise
    except OSError as error:
        raise explain_os_error(error, path) from error


def read_json(path: Path | str) -> Any:
    """A JSON file's value, None where there is none or it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yields a new empty folder beside `path`; on success its files are flushed and it takes `path`'s place
    (an older folder there is replaced), else it is removed.

    Raises `StageError` where the disk is full or can't be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
            else:
                _sync_folder(file)
        old = None
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.replace(old)
        temporary.replace(path)
        _sync_folder(path.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Holds a lock on `path` (its folder is made) until the block ends or the process dies.

    A second process that makes the same thing waits here, and then finds it made.
    """
    from filelock import FileLock  # some 30 ms, which a command that locks nothing need not wait

    lock = Path(path).with_name(f".{Path(path).name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock)
        held.acquire()
    except OSError as error:
        raise explain_os_error(error, lock.parent) from error
    try:
        yield
    finally:
        held.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value, in hex, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
