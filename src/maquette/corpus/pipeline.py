"""From a source to a corpus: read, clean, deduplicate, split, write; and what happened to the text on the way.

Two passes over the text. The first reads and cleans the documents in worker processes, spools them to disk, one file
a domain, and keeps only their fingerprints. On those it is decided which blocks stay and in which split. The second
pass writes what stays. So memory grows with the fingerprints (see `deduplication`), not with the text.
"""

import dataclasses
import functools
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_file
from maquette.artifacts.progress import progress
from maquette.corpus.config import CorpusConfig
from maquette.corpus.deduplication import (
    FRAME,
    Kept,
    block_document,
    drop_duplicate_documents,
    drop_duplicate_paragraphs,
    drop_near_duplicates,
    drop_repeated_windows,
    repetition_rates,
)
from maquette.corpus.document import SPLITS, Document, DocumentWriter, Rejection, clean, normalize, write_documents
from maquette.corpus.fingerprints import Fingerprints, fingerprint
from maquette.corpus.sources import read_examples
from maquette.corpus.splits import TRAIN, Layout, group_of, lay_out, write_splits
from maquette.corpus.workers import Workers, batches

CLEAN = "clean"
"""Domain of a validation text that several corpora share; the synthetic web's file of texts that no page has."""

_BATCH_CHARACTERS = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What the first pass found: `domains` sorted; of each document its domain (index) and group, in reading order."""

    domains: list[str]
    domain: NDArray[np.int64]
    groups: list[str]
    prints: Fingerprints
    rejected: dict[str, dict[str, int]]  # reason -> domain -> documents
    digest: str  # of all documents read


def make_corpus(documents: Iterable[Document], config: CorpusConfig, folder: Path, workers: Workers) -> dict[str, Any]:
    """Makes the three split files in `folder` from `documents`. Raises `StageError` where nothing is left.

    Returns the manifest's facts: digests, `domains` (documents and bytes by domain and split), `rejected` (documents by
    reason and domain), `funnel` (documents and characters by domain after each step), rates of `repetition`.
    """
    spool = folder / "spool"
    spool.mkdir()
    reading = read(documents, config, spool, workers)
    if not reading.groups:
        raise StageError(*_nothing_left(reading, config))
    retained, opens, funnel = deduplicate(reading, config)
    layout = lay_out(reading.prints, reading.domain, reading.groups, retained, opens, config)
    funnel.append(_remainder("too short", reading, layout.retained))
    if not layout.retained.any():
        raise StageError(*_nothing_left(reading, config))
    with ThreadPoolExecutor(1) as beside:  # numpy leaves Python to the other thread
        rates = beside.submit(_rates, reading, layout, config.window)
        domains, digest = write_splits(reading.domains, reading.domain, reading.prints, layout, spool, folder)
        shutil.rmtree(spool)
        before, after = rates.result()
    return {
        "read_digest": reading.digest,
        "documents_digest": digest,
        "domains": domains,
        "rejected": reading.rejected,
        "funnel": funnel,
        "repetition": {"window": config.window, "frame": FRAME, "before": before, "after": after},
    }


def read(documents: Iterable[Document], config: CorpusConfig, spool: Path, workers: Workers) -> Reading:
    """The first pass: cleans and fingerprints the documents and spools them into `spool`, numbered by domain."""
    seen: dict[str, int] = {}  # domains in the order of their first document
    domain: list[int] = []
    groups: list[str] = []
    prints: list[Fingerprints] = []
    rejected: dict[str, Counter[str]] = {}
    digest = hashlib.sha256()
    prepare = functools.partial(_prepare, minimum_characters=config.minimum_characters)
    tasks = batches(documents, lambda document: len(document.text) + 64, _BATCH_CHARACTERS)
    with ExitStack() as files:
        writers: list[DocumentWriter] = []
        for batch in workers.map(prepare, tasks):
            digest.update(batch.digest)
            for rejection in batch.rejected:
                rejected.setdefault(rejection.reason, Counter())[rejection.document.domain] += 1
            for document in batch.documents:
                number = seen.setdefault(document.domain, len(seen))
                if number == len(writers):
                    writers.append(files.enter_context(DocumentWriter(spool / f"{number}.parquet")))
                writers[number].write(document)
                domain.append(number)
                groups.append(group_of(document))
            prints.append(batch.prints)
    names = sorted(seen)
    for name, number in seen.items():  # the spool's numbers become those of the sorted names
        (spool / f"{number}.parquet").rename(spool / f"{names.index(name)}.sorted.parquet")
    ranks = np.array([names.index(name) for name in seen], np.int64)
    return Reading(
        names,
        ranks[np.array(domain, np.int64)] if domain else np.empty(0, np.int64),
        groups,
        Fingerprints.concatenate(prints or [fingerprint([])]),
        {reason: dict(sorted(counts.items())) for reason, counts in sorted(rejected.items())},
        digest.hexdigest(),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    documents: list[Document]
    rejected: list[Rejection]
    prints: Fingerprints
    digest: bytes


def _prepare(batch: list[Document], minimum_characters: int) -> _Prepared:
    """Cleaning and fingerprints of a batch, in a worker. The digest is of the documents as they were read."""
    digest = hashlib.sha256()
    results = [clean(document, minimum_characters) for document in batch]
    for document in batch:
        for field in (document.domain, document.id, document.text):
            encoded = field.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    documents = [result for result in results if isinstance(result, Document)]
    rejected = [
        dataclasses.replace(result, document=dataclasses.replace(result.document, text=""))
        for result in results
        if isinstance(result, Rejection)
    ]
    return _Prepared(documents, rejected, fingerprint([document.text for document in documents]), digest.digest())


def deduplicate(reading: Reading, config: CorpusConfig) -> tuple[Kept, NDArray[np.bool_], list[dict[str, Any]]]:
    """What is kept of each block, where documents are parted, and what every step left."""
    prints = reading.prints
    retained = np.ones(prints.block_size.size, np.bool_)
    funnel = [_remainder("read", reading, retained)]
    if not config.deduplicate:
        return retained, np.zeros(retained.size, np.bool_), funnel
    with progress("removing repetition", 4, unit="steps") as advance:
        for step, drop in (
            ("duplicate documents", drop_duplicate_documents),
            ("duplicate paragraphs", drop_duplicate_paragraphs),
            ("near-duplicate paragraphs", functools.partial(drop_near_duplicates, threshold=config.near_duplicates)),
        ):
            retained = drop(prints, retained)
            funnel.append(_remainder(step, reading, retained))
            advance(1)
        retained, opens = drop_repeated_windows(prints, retained, config.window)
        funnel.append(_remainder("repeated windows", reading, retained))
        advance(1)
    return retained, opens, funnel


def _remainder(step: str, reading: Reading, retained: Kept) -> dict[str, Any]:
    """What is left after a step: documents and characters of each domain."""
    prints = reading.prints
    span = prints.block_span[retained].astype(np.int64)
    document = block_document(prints)[retained]
    count = len(reading.domains)
    characters = np.bincount(reading.domain[document], span[:, 1] - span[:, 0] + 1, count).astype(int)
    documents = np.bincount(reading.domain[np.unique(document)], minlength=count)
    return {
        "step": step,
        "documents": dict(zip(reading.domains, documents.tolist(), strict=True)),
        "characters": dict(zip(reading.domains, characters.tolist(), strict=True)),
    }


def _rates(reading: Reading, layout: Layout, window: int) -> tuple[dict[str, dict[str, float]], ...]:
    """Repetition by domain and split, before and after deduplication."""
    prints, domains = reading.prints, reading.domains
    held_out = np.arange(len(SPLITS) * len(domains)) % len(SPLITS) != TRAIN
    results = []
    for retained, part in ((np.ones_like(layout.retained), layout.part_before), (layout.retained, layout.part)):
        _, first = np.unique(part, return_index=True)
        home = reading.domain[block_document(prints)[first]] * len(SPLITS) + layout.split[first]
        rates = repetition_rates(
            prints.tokens if retained.all() else prints.tokens[np.repeat(retained, prints.block_size)],
            np.repeat(part[retained].astype(np.int32), prints.block_size[retained]),
            home,
            held_out,
            window,
        )
        following = iter(rates)
        results.append({name: {split: next(following) for split in SPLITS} for name in domains})
    return tuple(results)


def _nothing_left(reading: Reading, config: CorpusConfig) -> tuple[str, str]:
    counts = {reason: sum(by_domain.values()) for reason, by_domain in reading.rejected.items()}
    reasons = "; ".join(f"{count} {reason}" for reason, count in counts.items())
    if not reading.groups and not counts:
        return "The source holds no documents.", "Check source.path."
    hint = f"Shorter texts than corpus.minimum_characters={config.minimum_characters} are dropped."
    return f"Nothing of the source is left to train on ({reasons or 'all of it repeats itself'}).", hint


def replace_validation(path: Path, folder: Path) -> dict[str, Any]:
    """One validation text for several corpora: those that differ in how they were filtered hold out text that differs
    as much, so losses on it say nothing.

    Makes the documents at `path` (JSONL or Parquet) the validation split of the corpus in `folder`, a domain of its own
    which no training text has; returns how many. Raises `StageError` where there are none.
    """
    read = [
        normalize(Document(document.id, document.text, document.url, CLEAN))
        for document in read_examples(str(path), "corpus.validation_source")
    ]
    documents = [document for document in read if document.text.strip()]
    if not documents:
        raise StageError(
            f"corpus.validation_source={path} holds no documents.", "Give a JSONL or Parquet file with the field text."
        )
    with atomic_file(folder / "validation.parquet") as temporary:
        write_documents(temporary, documents, checksums=False)  # the manifest has its digest
    return {"documents": len(documents), "bytes": sum(len(document.text.encode()) for document in documents)}
