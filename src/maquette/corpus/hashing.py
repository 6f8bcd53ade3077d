"""Lexical tokens of a text, hashes of them and of runs of them, and which stand more than once: for finding repetition.

A token is a run of letters, digits and underscores, or one other visible character (the regular expression
`\\w+|[^\\w\\s]`): not what a model reads. Scripts written without spaces between words (Thai, Lao, Khmer, Burmese,
Chinese, Japanese) count every letter as a token, else a paragraph of them would be one word.

All hashes have 64 bits, depend on the text alone and are the same in every process and on every machine. A run's is a
polynomial in its tokens modulo 2^64 (Karp & Rabin 1987), scrambled; a chance of about one in four thousand that any two
of a hundred million runs agree without being equal.
"""

import dataclasses
import functools
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


Characters = NDArray[np.uint8] | NDArray[np.uint32]

_CHARACTER_MULTIPLIER = np.uint64(GOLDEN)
_TABLE = 0x32400  # beyond the last ideograph there are only signs without a meaning of their own: one hash for all
_LONGEST_WORD = 4096  # characters after it repeat the powers; only absurd words could collide
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1A20, 0x1AAF), (0x3005, 0x30FF), (0x3100, 0x312F),
    (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
    (0x20000, 0x323FF),
)  # fmt: skip

_SPACE, _WORD, _SINGLE = 0, 1, 2


def characters(text: str) -> Characters:
    """The code points of `text`, one number each."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def without_digits(points: Characters) -> Characters:
    """The code points with every ASCII digit as a zero."""
    digit = (points >= ord("1")) & (points <= ord("9"))
    return np.where(digit, points.dtype.type(ord("0")), points)


def tokenize(points: Characters) -> tuple[Integers, Hashes]:
    """Starts (offsets into `points`) and hashes of the tokens of a text given as `characters`."""
    if points.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    classes, mixed, place_powers = _tables()
    points = points if points.dtype == np.uint8 else np.minimum(points, np.uint32(_TABLE))
    kind = classes[points]
    begins = kind != _SPACE
    begins[1:] &= (kind[1:] == _SINGLE) | (kind[:-1] != _WORD)
    starts = np.flatnonzero(begins)
    if starts.size == 0:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    # Sum over a token's characters of mixed(character) x multiplier^(place in the token), modulo 2^64. White space
    # weighs nothing, so a token's sum may run on to where the next one starts.
    lengths = np.diff(starts, append=points.size)
    place = np.arange(points.size - starts[0], dtype=np.int32) - np.repeat(
        (starts - starts[0]).astype(np.int32), lengths
    )
    if lengths.max() > _LONGEST_WORD:
        place %= _LONGEST_WORD
    weighted = mixed[points[starts[0] :]]
    weighted *= place_powers[place]
    return starts, mix(np.add.reduceat(weighted, starts - starts[0]))


@functools.lru_cache(maxsize=1)
def lower_case_tokens(text: str) -> Hashes:
    """Hashes of the tokens of a text in lower case. The last text's are kept: several steps ask for the same."""
    hashes = tokenize(characters(text.lower()))[1]
    hashes.setflags(write=False)
    return hashes


TOKEN_BUCKETS = 1 << 16


def token_buckets(text: str) -> NDArray[np.int64]:
    """The tokens of a text in lower case, each as one of `TOKEN_BUCKETS` numbers."""
    return (lower_case_tokens(text) >> np.uint64(48)).astype(np.int64)


def text_hash(text: str) -> int:
    """A 64-bit hash of a short text; the same everywhere."""
    points = characters(text)
    return int(sequence_hashes(points.astype(np.uint64) + np.uint64(1), np.zeros(1, np.int64))[0]) if points.size else 0


def uniform(text: str) -> float:
    """A number in 0 ... 1 that follows from a short text, as if it were drawn."""
    return (text_hash(text) >> 11) / (1 << 53)


@functools.cache
def _tables() -> tuple[NDArray[np.uint8], Hashes, Hashes]:
    """Per code point its class and a hash (zero for white space); powers of the multiplier."""
    kinds = np.full(_TABLE + 1, _SINGLE, np.uint8)
    for point in range(_TABLE):
        character = chr(point)
        if character.isspace():
            kinds[point] = _SPACE
        elif character.isalnum() or character == "_":
            kinds[point] = _WORD
    for first, last in _UNSPACED:
        stretch = kinds[first : last + 1]
        stretch[stretch == _WORD] = _SINGLE
    mixed = mix(np.arange(1, _TABLE + 2, dtype=np.uint64) * _CHARACTER_MULTIPLIER)
    mixed[kinds == _SPACE] = 0
    return kinds, mixed, powers(_CHARACTER_MULTIPLIER, _LONGEST_WORD)
