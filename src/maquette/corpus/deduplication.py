"""Which blocks of a corpus are kept, so that it says nothing twice: documents, paragraphs, near copies, windows. And
how much of it repeats, before and after.

Each step takes the fingerprints of the whole corpus and the blocks kept so far, and returns those it keeps. Of equals
the first in the corpus's order is kept, so the result does not depend on the number of workers. Deduplication is done
before the split: what stands nowhere twice stands in no two splits. A *window* is a run of `length` lexical tokens
inside one document.

Memory: about six bytes for each byte of text, and up to two gigabytes for the search.
"""

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.fingerprints import Fingerprints
from maquette.corpus.hashing import SLAB, Hashes, Integers, Repeats, repeats, sequence_hashes, window_hashes
from maquette.corpus.near_duplicates import first_of_cluster, similar_pairs

SHORTEST_DUPLICATE = 8
"""Paragraphs with fewer tokens may stand as often as they like: they are headings and short statements."""

PASSES = 3
"""Over the corpus when windows are dropped; each costs a sort of all of them, and the third finds almost none."""

Kept = NDArray[np.bool_]
"""Of each block whether it is kept, `(B,)`."""


def drop_duplicate_documents(prints: Fingerprints, retained: Kept) -> Kept:
    """Drops documents whose tokens are those of an earlier one: equal, but for white space."""
    documents, first = np.unique(_token_documents(prints), return_index=True)
    hashes = sequence_hashes(prints.tokens, first)
    return retained & ~np.isin(block_document(prints), documents[_later(hashes)])


def drop_duplicate_paragraphs(prints: Fingerprints, retained: Kept) -> Kept:
    """Drops paragraphs whose tokens are those of an earlier one, from `SHORTEST_DUPLICATE` tokens on."""
    paragraphs = _whole_paragraphs(prints, retained)
    paragraphs = paragraphs[_paragraph_size(prints)[paragraphs] >= SHORTEST_DUPLICATE]
    later = paragraphs[_later(prints.paragraph_hash[paragraphs])]
    return retained & ~np.isin(prints.block_paragraph, later)


def drop_near_duplicates(prints: Fingerprints, retained: Kept, threshold: float) -> Kept:
    """Drops paragraphs whose estimated Jaccard similarity to an earlier one is at least `threshold`; see `minhash`.

    Those that agree in a band are compared by their whole signatures, similar ones are joined into clusters, and of
    each cluster the first is kept.
    """
    if threshold >= 1:
        return retained
    whole = np.isin(prints.signed, _whole_paragraphs(prints, retained))
    signed = prints.signed[whole]
    first = first_of_cluster(*similar_pairs(prints.signature[whole], threshold), signed.size)
    return retained & ~np.isin(prints.block_paragraph, signed[first != np.arange(signed.size)])


def drop_repeated_windows(prints: Fingerprints, retained: Kept, length: int) -> tuple[Kept, NDArray[np.bool_]]:
    """Drops blocks until no window of `length` tokens stands twice in what is kept.

    Block after block, in order: a block is dropped when a window that ends in it stands in the text kept so far, or
    twice in itself. Where a block falls out its neighbours form windows that were not there before, so there are
    several passes. In the last one the document is parted where a block falls out: that forms no window, so what
    remains is clean. Headings that lost their text go too. Returns what is kept, and which blocks open a new part of
    their document, `(B,)`.
    """
    retained, opens = retained.copy(), np.zeros(retained.size, np.bool_)
    document = block_document(prints).astype(np.int32)
    for number in range(PASSES):
        chosen = np.flatnonzero(retained)
        size = prints.block_size[chosen]
        tokens = prints.tokens[np.repeat(retained, prints.block_size)]
        same = repeated_windows(tokens, np.repeat(document[chosen], size), length)
        if same.positions.size == 0:
            break
        token_block = np.repeat(chosen.astype(np.int32), size)
        begins, ends = token_block[same.positions], token_block[same.positions + length - 1]
        dropped = _drop_in_order(retained, begins, ends, same.groups)
        if number == PASSES - 1:
            opens[dropped] = True
        else:
            retained = drop_empty_headings(prints, retained)
    return retained, opens


def drop_empty_headings(prints: Fingerprints, retained: Kept) -> Kept:
    """Drops short paragraphs whose next paragraph fell out, where another short one or the document's end follows."""
    document = prints.paragraph_document
    short = _paragraph_size(prints) < SHORTEST_DUPLICATE
    stands = np.zeros(document.size, np.bool_)
    stands[prints.block_paragraph[retained]] = True
    bereft = np.zeros(document.size, np.bool_)
    bereft[:-1] = (document[1:] == document[:-1]) & ~stands[1:]
    left = np.flatnonzero(stands)
    followed = np.zeros(document.size, np.bool_)  # by a paragraph of some length
    followed[left[:-1]] = (document[left[1:]] == document[left[:-1]]) & ~short[left[1:]]
    return retained & ~(short & bereft & ~followed)[prints.block_paragraph]


def _drop_in_order(retained: Kept, begins: NDArray[np.int32], ends: NDArray[np.int32], group: Integers) -> Integers:
    """One pass over the windows that stand more than once: the blocks each begins and ends in, and which are equal.

    Changes `kept` in place and returns the blocks dropped.
    """
    order = np.argsort(ends, kind="stable")
    begins, ends, group = begins[order], ends[order], group[order]
    inner = np.sort((ends.astype(np.uint64) << np.uint64(32)) | group.astype(np.uint64))
    repetitive = set((inner[1:][inner[1:] == inner[:-1]] >> np.uint64(32)).tolist())
    borders = np.flatnonzero(np.append(True, ends[1:] != ends[:-1]))
    seen = np.zeros(int(group.max()) + 1, np.bool_)
    dropped = []
    for block, first, last in zip(
        ends[borders].tolist(), borders.tolist(), [*borders[1:].tolist(), ends.size], strict=True
    ):
        mine = group[first:last]
        if begins[first] != block:  # in the order of the text: those that began in earlier blocks come first
            mine = mine[retained[begins[first:last]]]  # what began in a block now gone is gone too
        if block in repetitive or seen[mine].any():
            retained[block] = False
            dropped.append(block)
        else:
            seen[mine] = True
    return np.array(dropped, np.int64)


def block_document(prints: Fingerprints) -> Integers:
    """The document of each block, `(B,)`."""
    return prints.paragraph_document[prints.block_paragraph]


def _token_documents(prints: Fingerprints) -> NDArray[np.int32]:
    return np.repeat(block_document(prints).astype(np.int32), prints.block_size)


def _paragraph_size(prints: Fingerprints) -> Integers:
    return np.bincount(prints.block_paragraph, prints.block_size, prints.paragraph_hash.size).astype(np.int64)


def _whole_paragraphs(prints: Fingerprints, retained: Kept) -> Integers:
    """The paragraphs of which every block is kept."""
    broken = np.zeros(prints.paragraph_hash.size, np.bool_)
    broken[prints.block_paragraph[~retained]] = True
    return np.flatnonzero(~broken)


def _later(hashes: Hashes) -> Integers:
    """The positions of all values that stand earlier too."""
    same = repeats(hashes)
    return same.positions[same.is_later]


FRAME = 128
"""Tokens in the stretches whose share with a repetition is reported: about what a small model sees at once."""

_AT_ONCE = 1 << 26  # windows sorted at once: what bounds the memory of a search, whatever the size of the corpus


def windows(
    tokens: Hashes, document: NDArray[np.int32], length: int, part: int = 0, parts: int = 1
) -> tuple[Hashes, Integers]:
    """All windows of `length` tokens: hash, and place of the first token, of each, `(W,)` both. `document` (T,) names
    each token's document, and no window crosses a border.

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
    return hashes[:filled], places[:filled]


def repeated_windows(tokens: Hashes, document: NDArray[np.int32], length: int) -> Repeats:
    """The windows that stand more than once, by the places of their first tokens; see `windows`."""
    parts = 1 + tokens.size // _AT_ONCE
    places, starts, filled = [], [], 0
    for part in range(parts):
        hashes, first = windows(tokens, document, length, part, parts)
        same = repeats(hashes)
        places.append(first[same.positions])
        starts.append(same.starts + filled)
        filled += same.positions.size
    return Repeats(np.concatenate(places), np.concatenate(starts))


def repetition_rates(
    tokens: Hashes, document: NDArray[np.int32], part: NDArray[np.int64], held_out: NDArray[np.bool_], length: int
) -> list[float]:
    """How much each part of a corpus (a domain's split) repeats: the share of its stretches of `FRAME` tokens that hold
    a repeated window, `(number of parts,)`.

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
        frames = -(-int(size[mine].sum()) // FRAME)
        rates.append(np.unique(inside[whole] // FRAME).size / max(frames, 1))
    return rates
