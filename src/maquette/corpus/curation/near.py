"""Documents that are almost the same: MinHash with locality-sensitive hashing.

Broder 1997; Leskovec et al., Mining of Massive Datasets, chapter 3.

A document's signature has `bands` x `rows` entries; two documents are joined when all `rows` entries of any band agree.
Documents of similarity s (Jaccard, of their shingles) are joined with probability 1 - (1 - s^rows)^bands: with 14
bands of 8 rows 0.08 at s = 0.5, 0.56 at 0.7, 0.92 at 0.8, 0.998 at 0.9. A joined pair joins the clusters of both; of a
cluster the first document is kept. Memory: 8 bytes a band and document, and a sort of one band at a time.
"""

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.errors import StageError
from maquette.corpus.curation.config import NearDuplicatesConfig
from maquette.corpus.lexical import Hashes, Integers, lower_case_tokens, sequence_hashes, window_hashes
from maquette.corpus.repetition import repeats

_SEED = 1
_BITS = np.uint64(4)  # 60 bits are used: engines that sort hashes take them for numbers below 2^61

NO_SHINGLES = np.uint64(0)


def s_curve(similarity: float, config: NearDuplicatesConfig) -> float:
    """The probability that two documents of a similarity are joined."""
    return float(1 - (1 - similarity**config.rows) ** config.bands)


def band_hashes(text: str, config: NearDuplicatesConfig) -> Hashes:
    """A hash of each band of the text's signature, `(bands,)`; zeros for a text too short for one shingle.

    Letters are taken in lower case, white space does not count.
    """
    try:
        from rensa import RMinHash
    except ImportError:
        raise StageError(
            "Finding near-duplicates needs the package rensa.",
            'Install it with: pip install "maquette-lm[curation]"; or turn it off: curation.near_duplicates.bands=0.',
        ) from None
    shingles = np.unique(window_hashes(lower_case_tokens(text), config.shingle))
    if shingles.size == 0:
        return np.full(config.bands, NO_SHINGLES)
    permutations = config.bands * config.rows
    offsets = np.array([0, shingles.size], np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, permutations, _SEED)
    signature = np.array(matrix.to_rows()[0], np.uint64)
    bands = sequence_hashes(signature, np.arange(config.bands) * config.rows)
    hashes: Hashes = np.maximum(bands >> _BITS, np.uint64(1))
    return hashes


def clusters(bands: Hashes) -> Integers:
    """Of each document the first of its cluster, `(n,)`, from the hashes of its bands, `(n, bands)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = bands.shape[0]
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for band in range(bands.shape[1]):
        column = np.ascontiguousarray(bands[:, band])
        same = repeats(column)
        later = np.ones(same.positions.size, np.bool_)
        later[same.starts] = False
        later &= column[same.positions] != NO_SHINGLES
        lefts.append(same.positions[np.flatnonzero(later) - 1])
        rights.append(same.positions[later])
    left, right = np.concatenate(lefts), np.concatenate(rights)
    graph = coo_array((np.ones(left.size, np.int8), (left, right)), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    return first_of(label)


def first_of(label: NDArray[np.integer]) -> Integers:
    """Of each element the first element with the same label, `(n,)`."""
    _, first, place = np.unique(label, return_index=True, return_inverse=True)
    return first[place]
