"""The order of training data in closed form: reached at any place at once, so a resumed run replays nothing.

**Keyed permutations** say where element i of a shuffled list stands, without shuffling the list: a generalised Feistel
network with cycle walking (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"), exactly a permutation of
0 ... size - 1 for any size, in constant memory.

**Interleaving** says which domain each sequence of a mixture comes from, in exact proportions. The domains are the
leaves of a Huffman tree over their weights. Of the first n sequences that reach a node, the nearest whole number to n x
(the left side's share) goes left, so the sequence at place n is found by walking down the tree once. In *any* run of
sequences, wherever it starts, a domain's count differs from its share by less than one at each level of the tree;
independent draws would differ by the root of the run's length.
"""

import hashlib
import heapq
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.hashing import GOLDEN, mix

Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]

_ROUND_KEYS = [np.uint64(number * GOLDEN % 2**64) for number in range(6)]

_RESOLUTION = 1 << 24
"""Weights are whole multiples of one part in this: exact arithmetic, the same on every machine."""


def key_of(*parts: object) -> np.uint64:
    """A 64-bit key from any printable parts, such as a seed and the name of a domain; the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return np.uint64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def derive(key: np.uint64 | Keys, counters: Integers) -> Keys:
    """One key for each counter (an epoch, a block), from a key."""
    return mix(np.asarray(key, dtype=np.uint64) + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN))


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


class Reshuffled:
    """`locate(numbers)`: item `n % count` of a permutation that is new in each round through all of them."""

    def __init__(self, count: int, name: str, seed: int) -> None:
        self.count = count
        self._key = key_of(name, seed)

    def locate(self, numbers: Integers) -> Integers:
        """The items (n,) that stand at `numbers` (n,) of the endless order."""
        rounds, places = np.divmod(numbers, self.count)
        return permute(places, np.full_like(places, self.count), derive(self._key, rounds))


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


class Interleaving:
    """Deals an endless row of sequences out to domains.

    `weights` (one per domain, any scale, zero for a domain that is left out) must not be negative, nor all zero.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        total = float(sum(weights))
        parts = [max(1, round(weight / total * _RESOLUTION)) if weight > 0 else 0 for weight in weights]
        self._num_domains = len(parts)
        # Leaves come first, so that a leaf's number is its domain's; a leaf is its own left child and keeps everything.
        left, right, weight = list(range(len(parts))), list(range(len(parts))), list(parts)
        depth = [0] * len(parts)
        heap = [(part, number) for number, part in enumerate(parts) if part]
        heapq.heapify(heap)
        for node in itertools.count(len(parts)):
            if len(heap) == 1:
                break
            (light, one), (heavy, two) = heapq.heappop(heap), heapq.heappop(heap)
            left.append(two)
            right.append(one)
            weight.append(light + heavy)
            depth.append(1 + max(depth[one], depth[two]))
            heapq.heappush(heap, (light + heavy, node))
        self._root = heap[0][1]
        self._depth = depth[self._root]
        self._left, self._right = np.array(left), np.array(right)
        self._weight = np.array([max(1, part) for part in weight])
        self._left_weight = self._weight[self._left]

    def deal(self, places: Integers) -> tuple[Integers, Integers]:
        """For each place (n,) its domain (n,) and how many sequences of that domain stand before it (n,)."""
        node = np.full(len(places), self._root)
        before = places.astype(np.int64)
        for _ in range(self._depth):
            share, whole = self._left_weight[node], self._weight[node]
            to_left = (before * share + whole // 2) // whole
            goes_left = ((before + 1) * share + whole // 2) // whole > to_left
            before = np.where(goes_left, to_left, before - to_left)
            node = np.where(goes_left, self._left[node], self._right[node])
        return node, before

    def counts(self, length: int) -> Integers:
        """How many of the first `length` sequences each domain gets: (domains,), adding up to `length`."""
        totals = np.zeros(self._num_domains, dtype=np.int64)
        pending = [(self._root, length)]
        while pending:
            node, arriving = pending.pop()
            if node < self._num_domains:
                totals[node] = arriving
                continue
            share, whole = int(self._left_weight[node]), int(self._weight[node])
            to_left = (arriving * share + whole // 2) // whole
            pending += [(int(self._left[node]), to_left), (int(self._right[node]), arriving - to_left)]
        return totals
