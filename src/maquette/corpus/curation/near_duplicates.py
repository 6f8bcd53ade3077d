"""Documents that are almost the same: MinHash (see `corpus.minhash`) of whole documents.

Two documents are joined when all `rows` entries of any of the `bands` of their signatures agree: with 14 bands of 8
rows, at a similarity (Jaccard, of their shingles) of 0.5 with probability 0.08, at 0.7 0.56, at 0.8 0.92, at 0.9 0.998.
A joined pair joins the clusters of both; of a cluster the first document is kept. Memory: 8 bytes a band and document,
and a sort of one band at a time; `datatrove_pipelines.clusters_on_disk` needs less.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.curation.config import NearDuplicatesConfig
from maquette.corpus.hashing import Hashes, Integers, repeats, window_hashes
from maquette.corpus.lexical import lower_case_tokens
from maquette.corpus.minhash import band_hashes, first_of_cluster, signatures

NO_SHINGLES = np.uint64(0)

_BITS = np.uint64(4)  # 60 bits are used: datatrove takes the hashes for numbers below 2^61


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


def read_bands(filtered: Path, shards: list[int]) -> Hashes:
    """The band hashes that the second pass over `shards` left, `(n, bands)`."""
    found = []
    for number in shards:
        with np.load(filtered / f"{number:05d}.npz") as arrays:
            found.append(arrays["bands"])
    return np.concatenate(found) if found else np.empty((0, 0), np.uint64)


def without(cluster: Integers, gone: NDArray[np.bool_]) -> Integers:
    """The first of each cluster, where some documents are gone for another reason: each of those is on its own."""
    result = cluster.copy()
    result[gone] = np.flatnonzero(gone)
    staying = np.flatnonzero(~gone)
    if staying.size:
        _, place, which = np.unique(cluster[staying], return_index=True, return_inverse=True)
        result[staying] = staying[place[which]]
    return result
