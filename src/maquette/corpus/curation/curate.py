"""Curation from shards to documents: two passes over every shard, and what is decided between and after them.

1. `extract`: pages, addresses, language                      (a shard at a time, anywhere)
2. `context`: repeated addresses and lines, models            (over all shards, here)
3. `refine`: lines, rules, private and unsafe text, quality   (a shard at a time, anywhere)
4. `select`: outliers, near-duplicates, the best              (over all shards, here)

Each shard's pass writes its own files and is not done again, so a run that was stopped goes on where it was. The
result depends on the shards and their order alone: not on the number of workers or on interruptions.
"""

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_file, write_json
from maquette.artifacts.progress import say
from maquette.corpus.curation.config import CurationConfig, ExecutorConfig
from maquette.corpus.curation.context import duplicate_addresses, make_context
from maquette.corpus.curation.engine import Watch, run_shards
from maquette.corpus.curation.extract import Shard, StoredShard, extract_shard, extracted
from maquette.corpus.curation.refine import refine_shard, refined
from maquette.corpus.curation.selection import Selection, select, selected
from maquette.corpus.document import Document, read_file, write_documents
from maquette.corpus.workers import available_cores, batches

_STORED_CHARACTERS = 8 << 20  # in one shard of documents that some other source gave


@dataclasses.dataclass(frozen=True)
class Places:
    """The folders of a curation under way, inside `root`."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def extract(self) -> Path:
        return self.root / "extract"

    @property
    def context(self) -> Path:
        return self.root / "context"

    @property
    def refine(self) -> Path:
        return self.root / "refine"

    @property
    def notes(self) -> Path:
        return self.root / "notes"

    def make(self) -> None:
        for folder in (self.extract, self.refine, self.notes):
            folder.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Removes everything: the corpus is made."""
        shutil.rmtree(self.root, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.root.parent.rmdir()  # where no other curation is under way


@dataclasses.dataclass(frozen=True)
class Job:
    """All that the work on one shard needs to know; picklable."""

    shards: Sequence[Shard]
    config: CurationConfig
    places: Places
    enabled: bool
    limit: int | None

    def extract(self, number: int, watch: Watch) -> None:
        """The first pass over a shard."""
        extract_shard(
            self.shards[number], number, self.config, self.places.extract, watch, enabled=self.enabled, limit=self.limit
        )

    def refine(self, number: int, watch: Watch) -> None:
        """The second pass over a shard."""
        known = json.loads((self.places.context / f"{number:05d}.skip.json").read_text())
        refine_shard(
            number, watch, self.places.extract, self.places.refine, self.places.context, self.config,
            skip=known["duplicates"], until=known["until"],
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Curated:
    """The documents kept, in order, and what is known of how they came to be."""

    job: Job
    shards: list[int]
    selection: Selection | None
    facts: dict[str, Any]

    def documents(self) -> Iterator[Document]:
        """The documents, each time from the start."""
        if self.selection is not None:
            yield from selected(self.job.places.refine, self.shards, self.selection)
            return
        left = self.job.limit
        for number in self.shards:
            for document in read_file(self.job.places.extract / f"{number:05d}.parquet"):
                if left is not None and left <= 0:
                    return
                left = None if left is None else left - 1
                yield document


def store(documents: Iterable[Document], folder: Path) -> list[StoredShard]:
    """Shards of documents that come one after the other, stored in `folder`; found again where they are complete."""
    listed = folder / "shards.json"
    if not listed.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        tasks = batches(documents, lambda document: len(document.text) + 64, _STORED_CHARACTERS)
        for number, batch in enumerate(tasks):
            path = folder / f"{number:05d}.parquet"
            with atomic_file(path) as temporary:
                write_documents(temporary, batch)
            found.append([path.name, sum(len(document.text) for document in batch)])
        write_json(listed, found)
    return [
        StoredShard(str(folder / name), name.partition(".")[0], size) for name, size in json.loads(listed.read_text())
    ]


def curate(
    shards: Sequence[Shard], config: CurationConfig, executor: ExecutorConfig, root: Path, *, enabled: bool,
    processes: int | None, limit: int | None,
) -> Curated:  # fmt: skip
    """Curates all `shards`, where `executor` says; without `enabled` only reads them.

    Raises `StageError` where every shard is lost, or what a step needs is missing.
    """
    job = Job(shards, config, Places(root), enabled, limit)
    job.places.make()
    if executor.kind == "local":
        lost = _run_locally(job, executor, processes or available_cores())
    else:
        from maquette.corpus.curation.distributed import run_distributed

        lost = run_distributed(job, executor, processes or available_cores())
    whole = [number for number in range(len(shards)) if number not in lost]
    if shards and not whole:
        raise StageError("Every shard was lost.", "See the lines above; corpus.workers=1 needs the least memory.")
    facts: dict[str, Any] = {"shards": len(shards), "lost_shards": [shards[number].name for number in lost]}
    if not enabled:
        return Curated(job, whole, None, facts)
    facts["context"] = json.loads((job.places.context / "report.json").read_text())
    on_disk = None
    if executor.near_duplicates == "disk":
        from maquette.corpus.curation.near_duplicates import clusters_on_disk

        on_disk = functools.partial(
            clusters_on_disk, job.places.refine, whole, root / "near", config.near_duplicates.bands,
            processes or available_cores(),
        )  # fmt: skip
    selection = select(job.places.refine, job.places.extract, whole, config, on_disk)
    return Curated(job, whole, selection, facts)


def _run_locally(job: Job, executor: ExecutorConfig, processes: int) -> list[int]:
    places = job.places
    run = functools.partial(run_shards, processes=processes, seconds=executor.seconds_per_page)
    lost = run(
        job.extract, [shard.size for shard in job.shards], functools.partial(extracted, places.extract),
        places.notes / "extract", description="reading pages", unit="bytes",
    )  # fmt: skip
    whole = [number for number in range(len(job.shards)) if number not in lost]
    if not job.enabled:
        return lost
    between(job, whole)
    sizes = {number: (places.extract / f"{number:05d}.parquet").stat().st_size for number in whole}
    return sorted(
        [
            *lost,
            *run(
                job.refine, [sizes.get(number, 0) for number in range(len(job.shards))],
                lambda number: number in lost or refined(places.refine, number),
                places.notes / "refine", description="judging documents", unit="bytes",
            ),
        ]
    )  # fmt: skip


def between(job: Job, shards: list[int]) -> None:
    """What is decided between the passes, unless it is already."""
    if (job.places.context / "report.json").exists():
        return
    say("learning from the whole corpus: repeated lines, tokens, quality")
    job.places.context.mkdir(parents=True, exist_ok=True)
    left = job.limit
    for number, later in duplicate_addresses(job.places.extract, shards).items():
        until = None if left is None else max(left, 0)
        left = None if left is None else left - later.size
        known = {"duplicates": np.flatnonzero(later).tolist(), "until": until}
        write_json(job.places.context / f"{number:05d}.skip.json", known)
    make_context(job.places.extract, shards, job.places.context, job.config)
