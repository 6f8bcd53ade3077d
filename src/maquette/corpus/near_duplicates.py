"""Near-duplicates by MinHash with locality-sensitive hashing: sets of shingles that are almost equal, found without
comparing every pair.

Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3. A set's signature has an entry for each of some
pseudo-random permutations; two entries agree with the probability of the sets' similarity (Jaccard). Signatures
are cut into bands of some rows; sets of similarity s agree in a whole band with probability 1 - (1 - s^rows)^bands.

Paragraphs (`similar_pairs`) that share a band are compared by their whole signatures. Documents of a crawl (`clusters`)
are joined when any of their bands agree: with 14 bands of 8 rows, at a similarity of 0.5 with probability 0.08, at 0.7
0.56, at 0.8 0.92, at 0.9 0.998. A joined pair joins the clusters of both; of a cluster the first is kept. Memory: 8
bytes a band and document, and a sort of one band at a time; `datatrove_pipelines.clusters_on_disk` needs less.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.reading import load_arrays
from maquette.corpus.config import NearDuplicatesConfig
from maquette.corpus.hashing import Hashes, Integers, lower_case_tokens, repeats, sequence_hashes, window_hashes

Signatures = NDArray[np.uint32]


def signatures(shingles: Hashes, first: Integers, permutations: int) -> Signatures:
    """The signatures `(S, permutations)` of S sets that lie one after the other in `shingles` from `first` `(S,)` on.

    Entry k is the smallest value of the k-th permutation over the set.
    """
    values = (shingles >> np.uint64(32)).astype(np.uint32)
    masks, factors = _permutations(permutations)
    if first.size == 1:  # one document: all permutations of a few shingles at once, within the processor's cache
        slabs = np.split(values, range(128, values.size, 128))
        return np.min([((slab[:, None] ^ masks) * factors).min(axis=0) for slab in slabs], axis=0, keepdims=True)
    minima = np.empty((first.size, permutations), np.uint32)
    for k in range(permutations if first.size else 0):
        minima[:, k] = np.minimum.reduceat((values ^ masks[k]) * factors[k], first)
    return minima


@functools.cache
def _permutations(count: int) -> tuple[Signatures, Signatures]:
    """The masks and odd factors of `x -> (x ^ mask) * factor`, one to one modulo 2^32."""
    generator = np.random.Generator(np.random.PCG64(0))
    masks = generator.integers(0, 2**32, count, dtype=np.uint32)
    return masks, generator.integers(0, 2**31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)


def band_hashes(signature: Signatures, bands: int, rows: int) -> Hashes:
    """A hash of each band of each signature, `(S, bands)`."""
    entries = signature[:, : bands * rows].astype(np.uint64).ravel()
    return sequence_hashes(entries, np.arange(len(signature) * bands) * rows).reshape(-1, bands)


def bands_and_rows(permutations: int, threshold: float) -> tuple[int, int]:
    """Bands and rows a band whose curve 1 - (1 - s^rows)^bands has its steep part, at (1/bands)^(1/rows), just below
    the threshold."""
    choices = [(permutations // rows, rows) for rows in range(1, permutations + 1)]
    below = [(bands, rows) for bands, rows in choices if (1 / bands) ** (1 / rows) <= threshold]
    return max(below, key=lambda choice: choice[1])


def similar_pairs(signature: Signatures, threshold: float) -> tuple[Integers, Integers]:
    """Pairs of sets that share a band and agree in at least `threshold` of all entries.

    In each bucket every set is compared with the one before it and with the first.
    """
    bands, rows = bands_and_rows(signature.shape[1], threshold)
    lefts, rights = [], []
    for band in range(bands):
        columns = signature[:, band * rows : (band + 1) * rows]
        same = repeats(band_hashes(columns, 1, rows)[:, 0])
        later, first = same.is_later, same.positions[same.starts][same.groups]
        right = same.positions[later]
        for left in (np.roll(same.positions, 1)[later], first[later]):
            agreeing = (signature[left] == signature[right]).mean(1) >= threshold
            lefts.append(left[agreeing])
            rights.append(right[agreeing])
    return np.concatenate(lefts), np.concatenate(rights)


def first_of_cluster(left: Integers, right: Integers, count: int) -> Integers:
    """Of each of `count` elements the first of its cluster, `(count,)`; pairs join the clusters of both.

    Memory beyond the result grows with the pairs alone.
    """
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


# Documents

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
    bands = [load_arrays(filtered / f"{number:05d}.npz")["bands"] for number in shards]
    return np.concatenate(bands) if bands else np.empty((0, 0), np.uint64)


def without(cluster: Integers, gone: NDArray[np.bool_]) -> Integers:
    """The first of each cluster, where some documents are gone for another reason: each of those is on its own."""
    result = cluster.copy()
    result[gone] = np.flatnonzero(gone)
    staying = np.flatnonzero(~gone)
    if staying.size:
        _, place, which = np.unique(cluster[staying], return_index=True, return_inverse=True)
        result[staying] = staying[place[which]]
    return result
