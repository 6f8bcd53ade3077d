"""64-bit hashes of tokens and of runs of tokens, and which of them stand more than once.

A run's hash is a polynomial in its tokens modulo 2^64 (Karp & Rabin 1987), scrambled. It depends on the tokens alone
and is the same in every process and on every machine; a chance of about one in four thousand that any two of a hundred
million runs agree without being equal.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Integers = NDArray[np.signedinteger[Any]]

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd: multiplication by it loses nothing modulo 2^64
_MULTIPLIER = np.uint64(0xD1342543DE82EF95)
SLAB = 1 << 16
"""Elements worked on at once where the intermediate results of many would not stay in the processor's cache."""


def mix(values: Hashes) -> Hashes:
    """Scrambles 64-bit integers (any shape) one to one: the finaliser of SplitMix64 (Steele et al. 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def powers(base: np.uint64, count: int) -> Hashes:
    """`base` to the power 0, 1, ... `count` - 1 modulo 2^64."""
    result = np.full(count, base, np.uint64)
    result[:1] = 1
    return np.multiply.accumulate(result)


def window_hashes(tokens: Hashes, length: int) -> Hashes:
    """Hashes of all runs of `length` tokens: entry i stands for tokens i ... i + length - 1; `(n - length + 1,)`.

    By doubling: the hash of a run is that of its first half x multiplier^(length of the second) + that of the second,
    so 24 tokens take six passes. Empty where there are fewer tokens.
    """
    if tokens.size < length:
        return np.empty(0, np.uint64)
    done, result = 0, tokens[:0]
    span, power = 1, tokens
    while True:
        factor = np.uint64(pow(int(_MULTIPLIER), span, 1 << 64))
        if length & span:
            result = _joined(result, power, done, factor) if done else power
            done += span
        if done == length:
            return mix(result)
        power = _joined(power, power, span, factor)
        span *= 2


def _joined(left: Hashes, right: Hashes, left_length: int, factor: np.uint64) -> Hashes:
    """Sums of runs whose first `left_length` tokens are summed up in `left` and whose others in `right`."""
    count = min(left.size, right.size - left_length)
    joined = left[:count] * factor
    joined += right[left_length : left_length + count]
    return joined


def sequence_hashes(tokens: Hashes, starts: Integers) -> Hashes:
    """One hash for each stretch of tokens: from a start to the next one (every stretch has at least one token)."""
    if starts.size == 0:
        return np.empty(0, np.uint64)
    place = np.arange(tokens.size) - np.repeat(starts, np.diff(starts, append=tokens.size))
    return mix(np.add.reduceat(tokens * powers(_MULTIPLIER, int(place.max()) + 1)[place], starts))


@dataclasses.dataclass(frozen=True, slots=True)
class Repeats:
    """Values that occur more than once, in groups of equals. `positions` (R,) of all their occurrences, ascending in
    each group; `starts` (G,) says where in `positions` each group begins."""

    positions: Integers
    starts: Integers

    @property
    def groups(self) -> Integers:
        """The group of each of `positions`, `(R,)`."""
        return np.repeat(np.arange(self.starts.size), np.diff(self.starts, append=self.positions.size))

    @property
    def is_later(self) -> NDArray[np.bool_]:
        """Whether each of `positions` is another than the first of its group, `(R,)`."""
        later = np.ones(self.positions.size, np.bool_)
        later[self.starts] = False
        return later


def repeats(values: Hashes) -> Repeats:
    """The values that occur more than once."""
    # Sorting numbers is several times faster than sorting their indices: so the low bits give way to the index, the
    # candidates are those that agree in the remaining bits, and only they are compared in full.
    index_bits = np.uint64(max(values.size - 1, 1).bit_length())
    low = (np.uint64(1) << index_bits) - np.uint64(1)
    keys = np.arange(values.size, dtype=np.uint64)
    for slab in range(0, values.size, SLAB):
        keys[slab : slab + SLAB] |= values[slab : slab + SLAB] & ~low
    keys.sort()
    equal = np.zeros(values.size + 1, np.bool_)
    for slab in range(1, values.size, SLAB):
        end = min(slab + SLAB, values.size)
        equal[slab:end] = (keys[slab:end] ^ keys[slab - 1 : end - 1]) <= low
    candidates = (keys[equal[1:] | equal[:-1]] & low).astype(np.int64)
    del keys
    order = np.argsort(values[candidates], kind="stable")
    positions = candidates[order]
    repeated = values[positions]
    first = np.flatnonzero(np.append(True, repeated[1:] != repeated[:-1])) if repeated.size else np.empty(0, np.int64)
    size = np.diff(first, append=repeated.size)
    several = np.repeat(size > 1, size)
    size = size[size > 1]
    return Repeats(positions[several], np.cumsum(size) - size)
