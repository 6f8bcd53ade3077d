"""Runs of tokens that stand in two places: held-out text that training has seen.

A run of `window` tokens is known by a 64-bit hash. Memory is bounded by the held-out text: training text, which may be
far larger, streams past it. `cut_seen` takes what training has seen out of held-out text; what is left of a document
between two cuts becomes a document of its own, so no run of tokens arises that nobody wrote, and measured losses speak
of text that was not trained on.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.hashing import Hashes, window_hashes
from maquette.data.shards import EncodedDocument

Tokens = NDArray[np.unsignedinteger]
Mask = NDArray[np.bool_]

MINIMUM_PIECE = 32
"""Shorter pieces between two cuts are dropped."""


def run_hashes(tokens: Tokens, window: int) -> Hashes:
    """A hash of each run of `window` tokens: (n,) -> (n - window + 1,), empty where the text is shorter."""
    return window_hashes(tokens.astype(np.uint64), window)


def shared_windows(held_out: Sequence[Tokens], training: Iterable[Tokens], window: int) -> list[Mask]:
    """For each held-out text, which of its runs of `window` tokens stand anywhere in the training text.

    `training` streams pieces; pieces of one text must overlap by `window - 1` tokens. The masks have the shapes of
    `run_hashes`.
    """
    if not held_out:
        return []
    hashes = [run_hashes(tokens, window) for tokens in held_out]
    known, places = np.unique(np.concatenate(hashes), return_inverse=True)
    seen = np.zeros(len(known), dtype=np.bool_)
    if len(known):
        # A table of the hashes' first bits turns most training runs away before the slower search.
        shift = np.uint64(64 - max(8, (16 * len(known)).bit_length()))
        table = np.zeros(1 << (64 - int(shift)), dtype=np.bool_)
        table[(known >> shift).view(np.int64)] = True
        for tokens in training:
            candidates = run_hashes(tokens, window)
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


@dataclasses.dataclass(frozen=True)
class CutText:
    """What is left of one held-out text, and what was found: runs of the window's length before the cut, how many of
    them training had seen, and how many still after (none)."""

    documents: list[EncodedDocument]
    tokens_before: int
    tokens_after: int
    windows: int = 0
    seen: int = 0
    seen_after: int = 0

    def facts(self) -> dict[str, Any]:
        """For the manifest: counts, and the share of runs seen before and after."""
        return {
            "windows": self.windows,
            "seen_share_before": self.seen / max(1, self.windows),
            "seen_share_after": self.seen_after / max(1, self.windows),
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
        }


def cut_seen(
    texts: Sequence[list[EncodedDocument]],
    training: Callable[[], Iterable[Tokens]],
    window: int,
    *,
    document_id: int,
    byte_lengths: NDArray[np.int32],
) -> list[CutText]:
    """Cuts every run of `window` tokens (0: none) out of `texts` that also stands in `training`, document tokens
    included.

    `training` streams the training text, each time from its start, in pieces that overlap by `window - 1` tokens. A cut
    makes new beginnings and so new runs across document tokens: passes are repeated until nothing is found (two, as a
    rule). `byte_lengths` (V,) gives the bytes of text of each token.
    """
    documents, streams = list(texts), [_stream(text, document_id) for text in texts]
    lengths = [len(stream) for stream in streams]
    if not window:
        return [CutText(text, length, length) for text, length in zip(texts, lengths, strict=True)]
    shared = before = shared_windows(streams, training(), window)
    while any(mask.any() for mask in shared):
        left = [
            _cut(old, covered(mask, len(stream), window), byte_lengths)
            for old, stream, mask in zip(documents, streams, shared, strict=True)
        ]
        if left == documents:  # only document tokens were found: a window of one token
            break
        documents, streams = left, [_stream(rest, document_id) for rest in left]
        shared = shared_windows(streams, training(), window)
    return [
        CutText(rest, length, len(stream), len(first), int(first.sum()), int(last.sum()))
        for rest, length, stream, first, last in zip(documents, lengths, streams, before, shared, strict=True)
    ]


def _stream(documents: Sequence[EncodedDocument], document_id: int) -> Tokens:
    if not documents:
        return np.empty(0, dtype=np.uint16)
    begin = np.array([document_id], dtype=documents[0].tokens.dtype)
    return np.concatenate([piece for document in documents for piece in (begin, document.tokens)])


def _cut(documents: Sequence[EncodedDocument], dropped: Mask, byte_lengths: NDArray[np.int32]) -> list[EncodedDocument]:
    """The pieces of `documents` that are left without the tokens marked in `dropped` (over their whole stream)."""
    left, start = [], 1
    for document in documents:
        stop = start + len(document.tokens)
        if not dropped[start:stop].any():
            left.append(document)
        else:
            for first, last in kept_runs(dropped[start:stop], MINIMUM_PIECE):
                tokens = document.tokens[first:last]
                left.append(EncodedDocument(document.id, tokens, int(byte_lengths[tokens].sum())))
        start = stop + 1
    return left
