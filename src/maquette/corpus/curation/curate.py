"""Curation from shards to documents: the passes of a `CurationJob`, by whichever executor, and what is decided after.

The last step, `select`, is taken here over all shards: outliers, near-duplicates, the best. A run that was stopped goes
on where it was. The result depends on the shards and their order alone: not on the executor, the number of workers or
interruptions.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from maquette.artifacts.reading import load_table
from maquette.corpus.curation.config import CurationConfig, ExecutorConfig
from maquette.corpus.curation.job import CurationJob
from maquette.corpus.curation.selection import Selection, select, selected
from maquette.corpus.curation.shards import Shard
from maquette.corpus.document import Document, read_file
from maquette.corpus.sources import needed
from maquette.corpus.workers import available_cores


@dataclasses.dataclass(frozen=True)
class Curated:
    """The documents kept, in order, and what is known of how they came to be."""

    job: CurationJob
    shards: list[int]
    selection: Selection | None
    facts: dict[str, Any]

    def documents(self) -> Iterator[Document]:
        """The documents, each time from the start."""
        if self.selection is not None:
            yield from selected(self.job.root / "filter", self.shards, self.selection)
            return
        left = self.job.limit
        for number in self.shards:
            for document in read_file(self.job.root / "extract" / f"{number:05d}.parquet"):
                if left is not None and left <= 0:
                    return
                left = None if left is None else left - 1
                yield document


def curate(
    shards: Sequence[Shard], config: CurationConfig, executor: ExecutorConfig, root: Path, *, enabled: bool,
    processes: int | None, limit: int | None,
) -> Curated:  # fmt: skip
    """Curates all `shards`, where `executor` says; without `enabled` only reads them.

    Raises `StageError` where every shard is lost, or what a step needs is missing.
    """
    job = CurationJob(shards, config, root, enabled, limit)
    job.make_folders()
    processes = processes or available_cores()
    if executor.kind == "local":
        _run_here(job, executor, processes)
    else:
        _datatrove(f"executor={executor.kind}").run_passes(job, executor, processes)
    whole = job.through(job.passes[-1])
    lost = [shard.name for number, shard in enumerate(shards) if number not in whole]
    facts: dict[str, Any] = {"shards": len(shards), "lost_shards": lost}
    if not enabled:
        return Curated(job, whole, None, facts)
    facts["corpus_statistics"] = load_table(root / "statistics" / "report.json")
    on_disk = None
    if executor.near_duplicates == "disk":
        on_disk = functools.partial(
            _datatrove("executor.near_duplicates=disk").clusters_on_disk,
            root / "filter", whole, root / "near_duplicates", config.near_duplicates.bands, processes,
        )  # fmt: skip
    return Curated(job, whole, select(root / "filter", root / "extract", whole, config, on_disk), facts)


def _run_here(job: CurationJob, executor: ExecutorConfig, processes: int) -> None:
    descriptions = {"extract": "reading pages", "filter": "filtering documents"}
    for name in job.passes:
        if name == "statistics":
            job.make_statistics()
        else:
            job.run_pass(
                name, range(len(job.shards)), processes=processes, description=descriptions[name],
                seconds=executor.seconds_per_page,
            )  # fmt: skip


def _datatrove(setting: str) -> ModuleType:
    return needed("maquette.corpus.curation.datatrove_pipelines", setting)
