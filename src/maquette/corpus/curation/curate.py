"""Curation from shards to documents: the passes of a `CurationJob`, by whichever executor, and what is decided after.

When all shards are through, `select` decides over the journals and band hashes, in the corpus's order: outliers among
what is left, clusters of near-duplicates, the best. A run that was stopped goes on where it was. The result depends on
the shards and their order alone: not on the executor, the number of workers or interruptions.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maquette.artifacts.reading import load_table
from maquette.corpus.config import CurationConfig, ExecutorConfig
from maquette.corpus.curation.job import CurationJob
from maquette.corpus.curation.journal import read_journal
from maquette.corpus.curation.shards import Shard
from maquette.corpus.document import Document, read_file
from maquette.corpus.hashing import Integers
from maquette.corpus.near_duplicates import clusters, read_bands, without
from maquette.corpus.sources import needed
from maquette.corpus.workers import available_cores

_FEWEST = 100  # documents: of fewer the spread says nothing
_DATATROVE = "maquette.corpus.curation.datatrove_pipelines"


@dataclasses.dataclass(frozen=True)
class Selection:
    """The journal of all shards with the final reasons, and of the documents that the second pass left (R,), in
    order: whether each is kept, the size of its cluster, and whether its quality is among the highest."""

    journal: pd.DataFrame
    passed: NDArray[np.bool_]
    cluster_size: Integers
    high: NDArray[np.bool_]


def select(
    filtered: Path, extract: Path, shards: list[int], config: CurationConfig,
    cluster_all: Callable[[], Integers] | None = None,
) -> Selection:  # fmt: skip
    """Reads what the passes over `shards` wrote, and decides. `cluster_all` finds the clusters of near-duplicates, as
    `near.clusters` would; by default that, in memory."""
    files = [folder / f"{number:05d}.journal.parquet" for number in shards for folder in (extract, filtered)]
    journal = pd.concat([read_journal(file) for file in files], ignore_index=True) if files else pd.DataFrame()
    left = np.flatnonzero((journal["reason"] == "").to_numpy())
    rows = journal.iloc[left]
    reason = np.full(left.size, "", object)
    value = np.full(left.size, np.nan)
    threshold = np.full(left.size, np.nan)

    for name, scores, limit in (
        ("outlier: word_length", rows["word_length"], config.outliers.word_length),
        ("outlier: token_surprise", rows["surprise"], config.outliers.token_surprise),
    ):
        if limit is not None:
            deviations = robust_deviations(scores.to_numpy(np.float64))
            out = (deviations > limit) & (reason == "")
            reason[out], value[out], threshold[out] = name, deviations[out], limit

    cluster = np.arange(left.size)
    if config.near_duplicates.bands:
        cluster = clusters(read_bands(filtered, shards)) if cluster_all is None else cluster_all()
    cluster = without(cluster, reason != "")
    later = (cluster != np.arange(left.size)) & (reason == "")
    reason[later] = "near duplicate: of an earlier page"
    size = np.bincount(cluster, minlength=left.size)[cluster]
    value[later] = size[later]

    passed = reason == ""
    high = np.zeros(left.size, np.bool_)
    quality = rows["quality"].to_numpy(np.float64)
    if passed.any() and np.isfinite(quality[passed]).any():
        high = passed & (quality >= np.nanquantile(quality[passed], min(config.quality.high, 1.0)))
        high &= quality > 0.5  # the model must hold them for reference-like, however few are better

    journal.loc[left, "reason"] = reason
    journal.loc[left, "value"] = value
    journal.loc[left, "threshold"] = threshold
    identities = rows["id"].to_numpy(object)
    journal["cluster"] = ""
    journal.loc[left, "cluster"] = identities[cluster] if left.size else []
    journal["cluster_size"] = 0
    journal.loc[left, "cluster_size"] = size
    return Selection(journal, passed, size, high)


def robust_deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each value is from the median, in robust standard deviations: 1.4826 times the median distance (MAD)."""
    known = np.isfinite(values)
    if known.sum() < _FEWEST:
        return np.zeros(values.size)
    middle = np.median(values[known])
    spread = 1.4826 * np.median(np.abs(values[known] - middle))
    distances: NDArray[np.float64] = np.where(known, np.abs(values - middle), 0.0)
    return distances / max(float(spread), 1e-9)


def selected(filtered: Path, shards: list[int], selection: Selection) -> Iterator[Document]:
    """The documents that are kept, in order. The best form a domain of their own: their domain's name and `-high`."""
    place = 0
    for number in shards:
        for document in read_file(filtered / f"{number:05d}.parquet"):
            if selection.passed[place]:
                size = int(selection.cluster_size[place])
                meta = document.meta | ({"cluster_size": size} if size > 1 else {})
                domain = f"{document.domain}-high" if selection.high[place] else document.domain
                yield dataclasses.replace(document, meta=meta, domain=domain)
            place += 1


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
        extracted = (read_file(self.job.root / "extract" / f"{number:05d}.parquet") for number in self.shards)
        yield from itertools.islice(itertools.chain.from_iterable(extracted), self.job.limit)


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
        needed(_DATATROVE, f"executor={executor.kind}").run_passes(job, executor, processes)
    whole = job.through(job.passes[-1])
    lost = [shard.name for number, shard in enumerate(shards) if number not in whole]
    facts: dict[str, Any] = {"shards": len(shards), "lost_shards": lost}
    if not enabled:
        return Curated(job, whole, None, facts)
    facts["corpus_statistics"] = load_table(root / "statistics" / "report.json")
    on_disk = None
    if executor.near_duplicates == "disk":
        on_disk = functools.partial(
            needed(_DATATROVE, "executor.near_duplicates=disk").clusters_on_disk,
            root / "filter", whole, root / "near_duplicates", config.near_duplicates.bands, processes,
        )  # fmt: skip
    return Curated(job, whole, select(root / "filter", root / "extract", whole, config, on_disk), facts)


def _run_here(job: CurationJob, executor: ExecutorConfig, processes: int) -> None:
    for name in job.passes:
        if name == "statistics":
            job.make_statistics()
        else:
            description = "reading pages" if name == "extract" else "filtering documents"
            job.run_pass(name, range(len(job.shards)), processes, description, executor.seconds_per_page)
