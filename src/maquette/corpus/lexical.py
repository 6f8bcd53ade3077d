"""Lexical tokens: words and punctuation marks, as hashes, for finding repetition. Not what a model reads.

A token is a run of letters, digits and underscores, or one other visible character (the regular expression
`\\w+|[^\\w\\s]`). Scripts written without spaces between words (Thai, Lao, Khmer, Burmese, Chinese, Japanese) count
every letter as a token, else a paragraph of them would be one word. Two texts with the same tokens differ in white
space only. Hashes are 64 bits, depend on the text alone and are the same in every process and on every machine.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.hashing import GOLDEN, Hashes, Integers, mix, powers

Characters = NDArray[np.uint8] | NDArray[np.uint32]

_MULTIPLIER = np.uint64(GOLDEN)
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
    mixed = mix(np.arange(1, _TABLE + 2, dtype=np.uint64) * _MULTIPLIER)
    mixed[kinds == _SPACE] = 0
    return kinds, mixed, powers(_MULTIPLIER, _LONGEST_WORD)
