"""Near-duplicates of corpora whose band hashes are more than one memory: datatrove's MinHash buckets on our hashes.

Each band's hashes are sorted shard by shard and merged as streams by `MinhashDedupBuckets`, a task a band; only pairs
of documents that agree in a band come back. Memory grows with the pairs, not with the corpus. The clusters are those
of `near.clusters`: the first of each is kept. (datatrove's own third stage keeps whichever its union left as the root.)
"""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import progress, say
from maquette.corpus.curation.near import NO_SHINGLES
from maquette.corpus.lexical import Integers

_RECORD = np.dtype([("hash", "<u8"), ("document", "<u4")])
_PAIR = np.dtype([(name, "<u4") for name in ("left_shard", "left", "right_shard", "right")])


def clusters_on_disk(refined: Path, shards: list[int], folder: Path, bands: int, processes: int) -> Integers:
    """Of each document of `shards`, in order, the first of its cluster, `(n,)`; `folder` is for what lies in between.

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
    counts = _write_signatures(refined, shards, folder / "signatures", bands)
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
    return _joined(left, right, int(starts[-1]))


def _write_signatures(refined: Path, shards: list[int], folder: Path, bands: int) -> list[int]:
    """Each shard's hashes by band, sorted, as datatrove's first stage writes them; the shards' document counts."""
    for band in range(bands):
        (folder / f"bucket_{band:03d}").mkdir(parents=True, exist_ok=True)
    counts = []
    with progress("sorting signatures", len(shards), unit="shards") as advance:
        for place, number in enumerate(shards):
            with np.load(refined / f"{number:05d}.npz") as arrays:
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


def _joined(left: NDArray[np.int64], right: NDArray[np.int64], count: int) -> Integers:
    """Clusters over the documents that stand in a pair; all others are on their own."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: Integers = np.arange(count)
    nodes, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    if nodes.size:
        ends = place.reshape(2, -1)
        graph = coo_array((np.ones(left.size, np.int8), (ends[0], ends[1])), shape=(nodes.size, nodes.size))
        _, label = connected_components(graph, directed=False)
        _, smallest, which = np.unique(label, return_index=True, return_inverse=True)
        first[nodes] = nodes[smallest[which]]
    return first
