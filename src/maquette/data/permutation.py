"""Keyed permutations in closed form: where element i of a shuffled list stands, without shuffling the list.

A generalised Feistel network with cycle walking (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"):
exactly a permutation of 0 ... size - 1 for any size, in constant memory, and reached at any place at once. The
order of training data is made of these, so a resumed run does not replay what came before.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.hashing import mix

Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_ROUND_KEYS = [np.uint64(number * _GOLDEN % 2**64) for number in range(6)]


def key_of(*parts: object) -> np.uint64:
    """A 64-bit key from any printable parts, such as a seed and the name of a domain; the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def derive(key: np.uint64 | Keys, counters: Integers) -> Keys:
    """One key for each counter (an epoch, a block), from a key."""
    return mix(np.asarray(key, dtype=np.uint64) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))


def permute(indices: Integers, sizes: Integers, keys: Keys) -> Integers:
    """The places of `indices` in the permutations of 0 ... `sizes` - 1 that `keys` choose.

    All arguments have shape (n,): each element may belong to another permutation. `indices[k]` must be in
    0 ... `sizes[k]` - 1, and the answer is too.
    """
    rows = np.floor(np.sqrt(sizes)).astype(np.int64) + 1
    columns = -(-sizes // rows)
    places = _feistel(indices, rows, columns, keys)
    outside = np.flatnonzero(places >= sizes)
    while outside.size:
        places[outside] = _feistel(places[outside], rows[outside], columns[outside], keys[outside])
        outside = outside[places[outside] >= sizes[outside]]
    return places


def _feistel(values: Integers, rows: Integers, columns: Integers, keys: Keys) -> Integers:
    """A permutation of 0 ... rows x columns - 1: each round moves one coordinate by a hash of the other."""
    row, column = (part.astype(np.uint64) for part in np.divmod(values, columns))
    row_count, column_count = rows.astype(np.uint64), columns.astype(np.uint64)
    for number, round_key in enumerate(_ROUND_KEYS):
        if number % 2:
            column = (column + mix((keys + round_key) ^ mix(row)) % column_count) % column_count
        else:
            row = (row + mix((keys + round_key) ^ mix(column)) % row_count) % row_count
    return (row * column_count + column).astype(np.int64)
