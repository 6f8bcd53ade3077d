"""Runs of tokens that stand in two places: held-out text that training has seen, training text that repeats itself.

A run of `window` tokens is known by a 64-bit hash. Memory is bounded by the held-out text: training text, which may be
far larger, streams past it.
"""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from maquette.data.permutation import Keys, key_of, mix

Tokens = NDArray[np.unsignedinteger]
Mask = NDArray[np.bool_]

_BASE = int(key_of("overlap")) | 1


@functools.lru_cache(maxsize=4)
def _values(size: int) -> Keys:
    return mix(np.arange(size, dtype=np.uint64) + np.uint64(_BASE))


def window_hashes(tokens: Tokens, window: int) -> Keys:
    """A hash of each run of `window` tokens: (n,) -> (n - window + 1,), empty where the text is shorter.

    The hash of a run is a polynomial modulo 2^64 in a fixed random value of each token (Karp & Rabin 1987). The hash of
    a run of 2k tokens comes from those of its two halves, so 24 tokens take five passes over the text.
    """
    if len(tokens) < window:
        return np.empty(0, dtype=np.uint64)
    hashes = _values(1 << max(16, int(tokens.max()).bit_length()))[tokens]  # of runs of 1, 2, 4, 8 ... tokens
    found, length, run = hashes[:0], 0, 1
    while True:
        if window & run:
            found = _joined(hashes, found, run, length) if length else hashes
            length += run
        if length == window:
            return found
        hashes = _joined(hashes, hashes, run, run)
        run *= 2


def _joined(left: Keys, right: Keys, left_length: int, right_length: int) -> Keys:
    """Hashes of runs of `left_length + right_length` tokens from the hashes of their parts."""
    count = min(len(left), len(right) - left_length)
    factor = np.uint64(pow(_BASE, right_length, 1 << 64))
    return left[:count] * factor + right[left_length : left_length + count]


def shared_windows(held_out: Sequence[Tokens], training: Iterable[Tokens], window: int) -> list[Mask]:
    """For each held-out text, which of its runs of `window` tokens stand anywhere in the training text.

    `training` streams pieces; pieces of one text must overlap by `window - 1` tokens. The masks have the shapes of
    `window_hashes`.
    """
    if not held_out:
        return []
    hashes = [window_hashes(tokens, window) for tokens in held_out]
    known, places = np.unique(np.concatenate(hashes), return_inverse=True)
    seen = np.zeros(len(known), dtype=np.bool_)
    if len(known):
        # A table of the hashes' first bits turns most training runs away before the slower search.
        shift = np.uint64(64 - max(8, (16 * len(known)).bit_length()))
        table = np.zeros(1 << (64 - int(shift)), dtype=np.bool_)
        table[(known >> shift).view(np.int64)] = True
        for tokens in training:
            candidates = window_hashes(tokens, window)
            candidates = np.sort(candidates[table[(candidates >> shift).view(np.int64)]])
            nearest = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
            seen[nearest[known[nearest] == candidates]] = True
    return np.split(seen[places], np.cumsum([len(part) for part in hashes])[:-1])


def covered(shared: Mask, length: int, window: int) -> Mask:
    """The tokens (length,) that lie in any of the runs marked in `shared`."""
    steps = np.zeros(length + 1, dtype=np.int64)
    starts = np.flatnonzero(shared)
    steps[starts] += 1
    np.subtract.at(steps, starts + window, 1)
    return np.cumsum(steps[:-1]) > 0


def kept_runs(dropped: Mask, minimum: int) -> list[tuple[int, int]]:
    """Start and stop of the runs of at least `minimum` tokens that are not dropped."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], dropped, [True]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2) if stop - start >= minimum]


def repeated_share(tokens: Tokens, window: int, sequence: int) -> float:
    """Share of the sequences (of `sequence` tokens, side by side) that hold a run of `window` tokens which an earlier
    sequence began."""
    hashes = window_hashes(tokens, window)
    sequences = len(hashes) // sequence
    if not sequences:
        return 0.0
    hashes = hashes[: sequences * sequence]
    order = np.argsort(hashes, kind="stable")
    fresh = np.concatenate([[True], hashes[order[1:]] != hashes[order[:-1]]])
    first = order[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))]
    repeated = np.zeros(sequences, dtype=np.bool_)
    repeated[order[first // sequence < order // sequence] // sequence] = True
    return float(repeated.mean())
