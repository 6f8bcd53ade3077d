"""Finding what a corpus says twice, and measuring how much it does.

The unit is the *window*: a run of `length` lexical tokens inside one document. All searches are exact: hashes have
64 bits, so among a hundred million windows a false match has a chance of about one in four thousand.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.hashing import SLAB, Hashes, Integers, Repeats, repeats, window_hashes

FRAME = 128
"""Tokens in the stretches whose share with a repetition is reported: about what a small model sees at once."""

_AT_ONCE = 1 << 26  # windows sorted at once: what bounds the memory of a search, whatever the size of the corpus


@dataclasses.dataclass(frozen=True, slots=True)
class Windows:
    """The windows of many documents laid end to end: hash, and place of the first token, of each. `(W,)` both."""

    hashes: Hashes
    places: Integers


def windows(tokens: Hashes, document: NDArray[np.int32], length: int, part: int = 0, parts: int = 1) -> Windows:
    """All windows of `length` tokens; `document` (T,) names each token's document, and no window crosses a border.

    With several `parts`, only those whose hash belongs to `part`: equal windows belong to the same one.
    """
    count = max(tokens.size - length + 1, 0)
    hashes = np.empty(count, np.uint64)
    places: Integers = np.empty(count, np.int32 if count < 2**31 else np.int64)
    filled = 0
    for first in range(0, count, SLAB):  # slab by slab, so that intermediate results stay small
        last = min(first + SLAB, count)
        inside = np.flatnonzero(document[first:last] == document[first + length - 1 : last + length - 1])
        all_hashes = window_hashes(tokens[first : last + length - 1], length)[inside]
        if parts > 1:
            mine = all_hashes % np.uint64(parts) == part
            all_hashes, inside = all_hashes[mine], inside[mine]
        end = filled + inside.size
        hashes[filled:end] = all_hashes
        places[filled:end] = inside + first
        filled = end
    return Windows(hashes[:filled], places[:filled])


def repeated_windows(tokens: Hashes, document: NDArray[np.int32], length: int) -> Repeats:
    """The windows that stand more than once, by the places of their first tokens; see `windows`."""
    parts = 1 + tokens.size // _AT_ONCE
    places, starts, filled = [], [], 0
    for part in range(parts):
        hashes = windows(tokens, document, length, part, parts)
        same = repeats(hashes.hashes)
        places.append(hashes.places[same.positions])
        starts.append(same.starts + filled)
        filled += same.positions.size
    return Repeats(np.concatenate(places), np.concatenate(starts))


@dataclasses.dataclass(frozen=True, slots=True)
class RepetitionRate:
    """Of `frames` stretches of `FRAME` tokens, how many hold a repeated window."""

    frames: int
    repeating: int

    @property
    def share(self) -> float:
        """`repeating / frames`, 0 of nothing."""
        return self.repeating / self.frames if self.frames else 0.0


def repetition_rates(
    tokens: Hashes, document: NDArray[np.int32], part: NDArray[np.int64], held_out: NDArray[np.bool_], length: int
) -> list[RepetitionRate]:
    """How much each part of a corpus (a domain's split) repeats, `(number of parts,)`.

    `document` (T,) names each token's document; `part` (D,) each document's part; `held_out` (parts,) which parts are
    not trained on. The tokens of a part are laid end to end and cut into frames. A frame of training text counts when
    one of its windows stands earlier in the training text of any domain; one of held-out text when one of its windows
    stands anywhere in the training text.
    """
    same = repeated_windows(tokens, document, length)
    places = same.positions
    held = held_out[part[document[places]]]
    trained = (~held).astype(np.int64)
    before = np.cumsum(trained) - trained  # occurrences in training text before this one, over all groups ...
    before -= np.repeat(before[same.starts], np.diff(same.starts, append=same.positions.size))  # ... in its group
    in_group = np.add.reduceat(trained, same.starts) if same.starts.size else trained
    bad = places[np.where(held, in_group[same.groups] > 0, before > 0)]

    size = np.bincount(document, minlength=part.size)
    start = np.cumsum(size) - size  # of each document among all tokens
    rates = []
    for number in range(held_out.size):
        mine = part == number
        place = start - np.cumsum(np.where(mine, size, 0)) + size  # what to take off for the place within the part
        inside = bad[mine[document[bad]]]
        inside = inside - place[document[inside]]
        whole = inside % FRAME <= FRAME - length
        rates.append(RepetitionRate(-(-int(size[mine].sum()) // FRAME), int(np.unique(inside[whole] // FRAME).size)))
    return rates
