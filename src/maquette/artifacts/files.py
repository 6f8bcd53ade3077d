"""Writing so that a crash leaves the old file or folder or the new one, never half of either; and digests.

What is being written has a hidden name, `.<name>.<host>-<pid>-<random>.partial`, until it is whole and takes its place.
What a killed process leaves of such is removed by the next process that writes into the same folder; readers list
folders with `listed`, which shows nothing hidden.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError, StageError

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space, or put the results elsewhere with outputs=<folder>.",
    errno.EDQUOT: "The disk quota is used up: free some space, or put the results elsewhere with outputs=<folder>.",
    errno.EROFS: "The file system is read-only: put the results elsewhere with outputs=<folder>.",
    errno.EACCES: "There is no permission to write there: put the results elsewhere with outputs=<folder>.",
    errno.EPERM: "There is no permission to write there: put the results elsewhere with outputs=<folder>.",
    errno.ENOTDIR: "A part of the path is a file, not a folder: choose another outputs=<folder>.",
}


_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-\w+\.(?P<kind>partial|old)", re.DOTALL)

_ABANDONED = 7 * 24 * 3600.0
"""Seconds after which what another machine has left is removed: whether its process lives can't be seen from here."""

_swept: set[Path] = set()
"""Folders in which this process has looked for leftovers."""


def explain_os_error(error: OSError, path: Path | str, doing: str = "write") -> StageError:
    """One line for people from an operating system's error, with what to do."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StageError(f"Can't {doing} {path}: {reason}.", _HINTS.get(error.errno or 0, ""))


def check_name(name: str, key: str) -> str:
    """`name`, which a user chose by `key` for a folder or file of ours. Raises `ConfigError` where it would lie
    anywhere but in the folder for such, or would be hidden, or is longer than file systems allow."""
    wrong = (
        "must not contain a slash" if "/" in name or "\\" in name
        else "must not begin with a dot" if name.startswith(".")
        else "must not be empty" if not name.strip()
        else "must not contain control characters" if any(ord(sign) < 32 or ord(sign) == 127 for sign in name)
        else "must be text that UTF-8 can express" if name != name.encode("utf-8", "replace").decode("utf-8")
        else "must have at most 150 bytes" if len(name.encode()) > 150
        else None
    )  # fmt: skip
    if wrong:
        raise ConfigError(f"{key}={name[:80]!r} {wrong}.", "Choose a name of letters, digits, dots, dashes.")
    return name


def listed(folder: Path | str, pattern: str = "*") -> list[Path]:
    """What is in a folder and matches, sorted; nothing hidden, which may be half written. Empty without a folder."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def relocated(path: Path | str, root: Path | str) -> Path:
    """Where a folder that was at `path` lies in `root` today: results that were moved, or copied from another machine,
    know their old place. `path` itself where `root` holds none with the same end, of two parts at least."""
    path, root = Path(path), Path(root).absolute()
    if not path.is_relative_to(root):
        for start in range(1, len(path.parts) - 1):
            place = root.joinpath(*path.parts[start:])
            if place.exists():
                return place
    return path


def portable(path: Path | str, root: Path | str) -> str:
    """A folder as it is written down where others read it, on this machine or another: within `root` from there on."""
    path, root = Path(path).absolute(), Path(root).absolute()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@functools.cache
def _host() -> str:
    """Where process numbers mean what they mean here: this machine, and this container of it."""
    namespace = Path("/proc/self/ns/pid")
    where = f"{socket.gethostname()} {namespace.readlink() if namespace.is_symlink() else ''}"
    return hashlib.sha256(where.encode()).hexdigest()[:6]


def _hidden(path: Path, kind: str) -> Path:
    """A new hidden name beside `path`, for what is `partial` or `old`."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{secrets.token_hex(6)}.{kind}")


def recover(folder: Path) -> None:
    """Removes what killed processes have left half written in `folder`, and gives a folder its place back that was
    moved aside and not replaced. Looks once in the life of a process, for what died before it."""
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):  # no such folder, or one of somebody else's
        for entry in os.scandir(folder):
            match = _LEFTOVER.fullmatch(entry.name) if entry.name.startswith(".") else None
            if match is None or not _is_dead(match["host"], int(match["pid"]), entry):
                continue
            if match["kind"] == "old" and not (folder / match["name"]).exists():
                Path(entry.path).replace(folder / match["name"])
            else:
                _remove(Path(entry.path))


def _is_dead(host: str, pid: int, entry: os.DirEntry[str]) -> bool:
    if host != _host():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed and renamed to `path`, else removed.

    Raises `StageError` where the disk is full or can't be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path.parent)
        temporary = _hidden(path, "partial")
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
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

    Half a line that a killed process left at the end is cut off first. Raises `StageError` where the file can't be
    written. Several processes need a lock.
    """
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace")
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_half_line(path)
        with path.open("ab") as file:
            size = file.tell()
            try:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, size)
                raise
    except OSError as error:
        raise explain_os_error(error, path) from error


_BLOCK = 1 << 16


def cut_half_line(path: Path) -> None:
    """Removes what a killed process has begun to write at the end of a file of lines: it was never acknowledged."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = start = file.seek(0, os.SEEK_END)
        whole = 0
        while start > 0 and not whole:  # from the end, so that a long file is not read
            block = min(start, _BLOCK)
            start = file.seek(start - block)
            whole = start + file.read(block).rfind(b"\n") + 1
            whole = whole if whole > start else 0
        if whole < end:
            file.truncate(whole)
            os.fsync(file.fileno())


def read_json(path: Path | str) -> Any:
    """A JSON file's value, None where there is none or it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def holds_manifest(folder: Path) -> bool:
    """Whether an artifact of ours lies there."""
    manifest = read_json(folder / "manifest.json")
    return isinstance(manifest, dict) and {"kind", "fingerprint", "files"} <= manifest.keys()


@contextlib.contextmanager
def atomic_folder(path: Path | str, is_ours: Callable[[Path], bool] = holds_manifest) -> Iterator[Path]:
    """Yields a new empty folder beside `path`; on success its files are flushed and it takes `path`'s place at once,
    else it is removed. A folder that is there is replaced where it is empty or `is_ours` says that we made it.

    Raises `StageError` where something else lies there, and where the disk is full or can't be written.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path.parent)
        _require_ours(path, is_ours)
        temporary = _hidden(path, "partial")
        temporary.mkdir()
        yield temporary
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
            else:
                _sync_folder(file)
        _require_ours(path, is_ours)
        if not os.path.lexists(path):
            temporary.replace(path)
        elif not _exchanged(temporary, path):
            path.replace(old := _hidden(path, "old"))
            temporary.replace(path)
            _remove(old)
        _sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        if temporary is not None:
            _remove(temporary)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` for what its making needs; removed at the end, or as what a killed process left."""
    folder = _hidden(path, "partial")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        _remove(folder)


def _require_ours(path: Path, is_ours: Callable[[Path], bool]) -> None:
    if not os.path.lexists(path) or (path.is_dir() and (not any(path.iterdir()) or is_ours(path))):
        return
    what = "is a file" if not path.is_dir() else f"holds files that maquette did not make ({min(path.iterdir()).name})"
    raise StageError(f"{path} {what}: it would be lost.", "Choose another name or folder, or move it away.")


def _exchanged(one: Path, other: Path) -> bool:
    """Lets two folders change places in one step (Linux's renameat2); False where that can't be done."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


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


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-like value, in hex, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
