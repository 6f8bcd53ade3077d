"""Shards: pages that are read one after the other, and the processes of a machine that work through them.

Nothing that one shard meets can take the others with it. datatrove runs tasks and resumes those that are not completed,
but a page that never ends, or kills its process, costs it the whole task; so every executor, datatrove's too, works
through shards by `run_shards`: each is one child process. What it has done it writes to its own files and renames at
the end, so a restart finds what is finished. Before each page the child notes the page's number in a small file: where
a page takes more of the processor's time than it may (the operating system ends the child then, even inside a parser's
loop) or brings the child down, the shard is done again without that page. A shard whose child dies again and again, or
between pages, is lost, and only it.
"""

import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_file, read_json
from maquette.artifacts.process_state import end_with
from maquette.artifacts.progress import progress, say
from maquette.artifacts.reading import load_json, load_sealed, write_sealed
from maquette.corpus.document import Document, Rejection, read_file, write_documents
from maquette.corpus.workers import batches

Watch = Callable[[int, int], bool]
"""Called before each page with its number and the bytes of the shard that lie before it; says whether to read it."""

Work = Callable[[int, Watch], None]

_STORED_CHARACTERS = 8 << 20  # in one shard of documents that some other source gave
_TRIES = 25  # of one shard: so many pages of it may bring a process down
_NOTE = struct.Struct("<qq")
_POLL = 0.5


class Shard(Protocol):
    """Pages that are read one after the other. `size` is in bytes; `name` says where from."""

    @property
    def size(self) -> int: ...

    @property
    def name(self) -> str: ...

    def documents(
        self, url_filter: Callable[[str], tuple[str, float] | None], watch: Watch, wants_links: Callable[[str], bool]
    ) -> Iterator[Document | Rejection]:
        """See `ArchiveShard.documents`."""


@dataclasses.dataclass(frozen=True, slots=True)
class StoredShard:
    """Documents that some source gave, stored in a file."""

    path: str
    name: str
    size: int

    def documents(
        self, url_filter: Callable[[str], tuple[str, float] | None], watch: Watch, wants_links: Callable[[str], bool]
    ) -> Iterator[Document | Rejection]:
        """The documents whose addresses are admitted."""
        place = 0
        for number, document in enumerate(read_file(self.path)):
            reason = url_filter(document.url) if document.url else None
            if reason is not None:
                yield Rejection(document, *reason)
            elif watch(number, place):
                yield document
            place += len(document.text)


def store(documents: Iterable[Document], folder: Path) -> list[StoredShard]:
    """Shards of documents that come one after the other, stored in `folder`; found again where they are complete."""
    listed = folder / "shards.json"
    if not listed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        stored = []
        tasks = batches(documents, lambda document: len(document.text) + 64, _STORED_CHARACTERS)
        for number, batch in enumerate(tasks):
            path = folder / f"{number:05d}.parquet"
            with atomic_file(path) as temporary:
                write_documents(temporary, batch)
            stored.append([path.name, sum(len(document.text) for document in batch)])
        write_sealed(listed, {"shards": stored})
    return [
        StoredShard(str(folder / name), name.partition(".")[0], size) for name, size in load_sealed(listed)["shards"]
    ]


def run_shards(
    work: Work, sizes: Sequence[float], done: Callable[[int], bool], folder: Path, processes: int, description: str,
    seconds: float,
) -> list[int]:  # fmt: skip
    """Does `work(shard, watch)` for every shard that is not `done`; returns the numbers of those that were lost.

    `sizes` in bytes are for the progress bar; `folder` holds the notes; `seconds` are those of a page. Raises what a
    shard raises, as `StageError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Forking takes no time and asks nothing of the main module; where it is not safe, processes start afresh.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    waiting = [number for number in range(len(sizes)) if not done(number)][::-1]
    tries: dict[int, int] = {}
    shown: dict[int, float] = {}
    lost: list[int] = []
    running: dict[int, BaseProcess] = {}
    with progress(description, float(sum(sizes)), unit="bytes") as advance:
        advance(sum(size for number, size in enumerate(sizes) if number not in waiting))

        def show(number: int, place: float) -> None:
            place = min(place, sizes[number])
            if place > shown.get(number, 0.0):
                advance(place - shown.get(number, 0.0))
                shown[number] = place

        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    number = waiting.pop()
                    notes = _Notes(folder, number)
                    notes.place.unlink(missing_ok=True)
                    child = context.Process(
                        target=_child, args=(work, number, notes, seconds, os.getpid()), daemon=True
                    )
                    child.start()
                    running[number] = child
                multiprocessing.connection.wait([child.sentinel for child in running.values()], _POLL)
                for number, child in list(running.items()):
                    notes, code = _Notes(folder, number), child.exitcode
                    page, place = notes.last()  # after the code: what a process that ended has noted is its last
                    if code is None:
                        show(number, place)
                        continue
                    child.join()
                    del running[number]
                    if code == 0:
                        show(number, sizes[number])
                        continue
                    notes.raise_error()
                    tries[number] = tries.get(number, 0) + 1
                    skipped = notes.skipped()
                    if page < 0 or page in skipped or tries[number] >= _TRIES:
                        lost.append(number)
                        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
                        say(f"{description}: shard {number} is lost, its process died ({reason})")
                    else:
                        notes.skip.write_text(json.dumps([*skipped, page]))
                        waiting.append(number)
        finally:
            for child in running.values():
                child.kill()
                child.join()
    return sorted(lost)


def _child(work: Work, number: int, notes: "_Notes", seconds: float, parent: int) -> None:
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    skipped = set(notes.skipped())
    note = os.open(notes.place, os.O_CREAT | os.O_RDWR | os.O_TRUNC)

    def watch(page: int, place: int) -> bool:
        os.pwrite(note, _NOTE.pack(page, place), 0)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        return page not in skipped

    try:
        work(number, watch)
        signal.setitimer(signal.ITIMER_PROF, 0)
    except StageError as error:
        notes.fail(error.message, error.hint)
        os._exit(3)
    except MemoryError:
        os._exit(4)
    except BaseException as error:
        import traceback

        notes.fail(f"{type(error).__name__}: {error}", traceback.format_exc()[-3000:])
        os._exit(3)
    finally:
        os.close(note)


def pages_done() -> None:
    """Called in a shard's work when its last page is read: what follows may take its time, and is no page's fault."""
    signal.setitimer(signal.ITIMER_PROF, 0)


class _Notes:
    """The files through which a shard's process and its parent speak: where it is, which pages to pass over, what went
    wrong."""

    def __init__(self, folder: Path, number: int) -> None:
        self.place, self.skip, self.error = (folder / f"{number:05d}.{name}" for name in ("note", "skip", "error"))

    def last(self) -> tuple[int, int]:
        """The page and place that the process noted last; (-1, 0) where it noted none."""
        with contextlib.suppress(OSError, struct.error):
            page, place = _NOTE.unpack(self.place.read_bytes())
            return int(page), int(place)
        return -1, 0

    def skipped(self) -> list[int]:
        """The pages that were too much for an earlier try."""
        pages = read_json(self.skip)
        return pages if isinstance(pages, list) else []

    def fail(self, message: str, hint: str) -> None:
        self.error.write_text(json.dumps([message, hint]))

    def raise_error(self) -> None:
        if self.error.exists():
            message, hint = load_json(self.error)
            self.error.unlink()
            raise StageError(message, hint)
