"""Documents that are almost the same: MinHash (see `corpus.minhash`) of whole documents.

Two documents are joined when all `rows` entries of any of the `bands` of their signatures agree: with 14 bands of 8
rows, at a similarity (Jaccard, of their shingles) of 0.5 with probability 0.08, at 0.7 0.56, at 0.8 0.92, at 0.9 0.998.
A joined pair joins the clusters of both; of a cluster the first document is kept. Two ways to find the pairs:

- in memory: 8 bytes a band and document, and a sort of one band at a time;
- on disk: each band's hashes are sorted shard by shard and merged as streams by datatrove's `MinhashDedupBuckets`, a
  task a band; memory grows with the pairs. (datatrove's next stage keeps whichever document its union left as the
  root, so the clusters are made here: the first of each is kept.)
"""

import shutil
from pathlib import Path

import numpy as np

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import progress, say
from maquette.corpus.curation.config import NearDuplicatesConfig
from maquette.corpus.hashing import Hashes, Integers, repeats, window_hashes
from maquette.corpus.lexical import lower_case_tokens
from maquette.corpus.minhash import band_hashes, first_of_cluster, signatures

NO_SHINGLES = np.uint64(0)

_BITS = np.uint64(4)  # 60 bits are used: datatrove takes the hashes for numbers below 2^61
_RECORD = np.dtype([("hash", "<u8"), ("document", "<u4")])
_PAIR = np.dtype([(name, "<u4") for name in ("left_shard", "left", "right_shard", "right")])


def s_curve(similarity: float, config: NearDuplicatesConfig) -> float:
    """The probability that two documents of a similarity are joined."""
    return float(1 - (1 - similarity**config.rows) ** config.bands)


def document_bands(text: str, config: NearDuplicatesConfig) -> Hashes:
    """A hash of each band of the text's signature, `(bands,)`; zeros for a text too short for one shingle.

    Letters are taken in lower case, white space does not count.
    """
    shingles = window_hashes(lower_case_tokens(text), config.shingle)
    if shingles.size == 0:
        return np.full(config.bands, NO_SHINGLES)
    signature = signatures(shingles, np.zeros(1, np.int64), config.bands * config.rows)
    hashes: Hashes = np.maximum(band_hashes(signature, config.bands, config.rows)[0] >> _BITS, np.uint64(1))
    return hashes


def clusters(bands: Hashes) -> Integers:
    """Of each document the first of its cluster, `(n,)`, from the hashes of its bands, `(n, bands)`."""
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for band in range(bands.shape[1]):
        column = np.ascontiguousarray(bands[:, band])
        same = repeats(column)
        later = np.flatnonzero(same.is_later & (column[same.positions] != NO_SHINGLES))
        lefts.append(same.positions[later - 1])
        rights.append(same.positions[later])
    return first_of_cluster(np.concatenate(lefts), np.concatenate(rights), bands.shape[0])


def clusters_on_disk(filtered: Path, shards: list[int], folder: Path, bands: int, processes: int) -> Integers:
    """What `clusters` gives for the documents of all `shards`, in order; `folder` is for what lies in between.

    Raises `StageError` where datatrove is missing or fails.
    """
    try:
        from datatrove.pipeline.dedup import MinhashDedupBuckets
        from datatrove.pipeline.dedup.minhash import MinhashConfig
        from datatrove.utils.hashing import HashConfig

        from maquette.corpus.curation.blocks import LocalExecutor
    except ImportError as error:
        raise StageError(
            f"executor.near_duplicates=disk needs the package {error.name}.",
            'Install it with: pip install "maquette-lm[curation]".',
        ) from None
    shutil.rmtree(folder, ignore_errors=True)
    counts = _write_signatures(filtered, shards, folder / "signatures", bands)
    config = MinhashConfig(num_buckets=bands, hashes_per_bucket=1, hash_config=HashConfig(precision=64))
    say(f"near-duplicates: {bands} bands by datatrove")
    try:
        LocalExecutor(
            [MinhashDedupBuckets(str(folder / "signatures"), str(folder / "pairs"), config=config)],
            tasks=bands, workers=min(processes, bands), logging_dir=str(folder / "logs"),
        ).run()  # fmt: skip
    except Exception as error:
        raise StageError(f"datatrove's MinHash buckets failed: {error}.", f"See {folder / 'logs'}.") from error
    starts = np.append(0, np.cumsum(counts))
    found = [np.fromfile(path, _PAIR) for path in sorted((folder / "pairs").glob("*.dups"))]
    pairs = np.concatenate([*found, np.empty(0, _PAIR)])
    left = starts[pairs["left_shard"]] + pairs["left"]
    right = starts[pairs["right_shard"]] + pairs["right"]
    shutil.rmtree(folder, ignore_errors=True)
    return first_of_cluster(left, right, int(starts[-1]))


def _write_signatures(filtered: Path, shards: list[int], folder: Path, bands: int) -> list[int]:
    """Each shard's hashes by band, sorted, as datatrove's first stage writes them; the shards' document counts."""
    for band in range(bands):
        (folder / f"bucket_{band:03d}").mkdir(parents=True, exist_ok=True)
    counts = []
    with progress("sorting signatures", len(shards), unit="shards") as advance:
        for place, number in enumerate(shards):
            with np.load(filtered / f"{number:05d}.npz") as arrays:
                hashes = arrays["bands"]
            counts.append(len(hashes))
            for band in range(bands):
                known = np.flatnonzero(hashes[:, band] != NO_SHINGLES)
                records = np.empty(known.size, _RECORD)
                records["hash"], records["document"] = hashes[known, band], known
                records.sort(order=["hash", "document"])
                records.tofile(folder / f"bucket_{band:03d}" / f"{place:05d}.minhash.sig")
            advance(1)
    return counts
