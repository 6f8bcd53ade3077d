"""Which examples of a test stand in the training tokens, and in which documents: contamination's cheap companion.

Exact runs of tokens find copies, and nothing else: a translation or a paraphrase passes. The contamination test asks
the model itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import ConfigError
from maquette.data import TokenShards
from maquette.data.overlap import covered, window_hashes

WINDOW = 24
"""Tokens of a run; a shorter one turns up by chance in code and licences."""

_PIECE = 1 << 22


@dataclass(frozen=True)
class ExampleOverlap:
    """How much of one example was trained on: `share` of its tokens that lie in a run which the training tokens hold
    too, and the `documents` (domain, id) that hold one, at most `MOST_DOCUMENTS`. `tested` is False where the example
    is shorter than a run."""

    share: float
    documents: tuple[tuple[str, str], ...]
    tested: bool


MOST_DOCUMENTS = 20


def ngram_overlap(
    shards: TokenShards,
    examples: Sequence[Sequence[int] | NDArray[np.integer]],
    *,
    window: int = WINDOW,
    split: str = "train",
    advance: Callable[[float], None] = lambda _: None,
) -> list[ExampleOverlap]:
    """Compares `examples`, tokens of the shards' own tokenizer, with all documents of a split.

    Memory is bounded by the examples; training tokens stream past, and `advance` is told how many.
    """
    if window < 2:
        raise ConfigError(f"window={window} is out of range.", "Allowed: at least 2 tokens.")
    tokens = [np.asarray(example, dtype=np.uint32) for example in examples]
    hashes = [window_hashes(row, window) for row in tokens]
    joined = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
    known, places = np.unique(joined, return_inverse=True)
    owner = np.repeat(np.arange(len(tokens)), [len(part) for part in hashes])
    by_hash = np.argsort(places, kind="stable")
    firsts = np.searchsorted(places[by_hash], np.arange(len(known) + 1))
    seen = np.zeros(len(known), bool)
    documents: list[dict[tuple[str, str], None]] = [{} for _ in tokens]
    for domain in shards.domains if len(known) else ():
        if not shards.tokens(split)[domain]:
            continue
        table = shards.documents(domain, split)
        start = 0
        for piece in shards.stream(domain, split).pieces(_PIECE, overlap=window - 1):
            candidates = window_hashes(piece, window)
            nearest = np.minimum(np.searchsorted(known, candidates), len(known) - 1)
            found = np.flatnonzero(known[nearest] == candidates)
            seen[nearest[found]] = True
            holders = np.searchsorted(table.starts, start + found, side="right") - 1
            for key, document in sorted(set(zip(nearest[found].tolist(), holders.tolist(), strict=True))):
                for example in set(owner[by_hash[firsts[key] : firsts[key + 1]]].tolist()):
                    if len(documents[example]) < MOST_DOCUMENTS:
                        documents[example][domain, table.ids[document]] = None
            start += len(piece) - (window - 1)
            advance(len(piece))
    shared = np.split(seen[places], np.cumsum([len(part) for part in hashes])[:-1]) if hashes else []
    return [
        ExampleOverlap(
            float(covered(mask, len(row), window).mean()) if len(mask) else 0.0, tuple(holding), bool(len(mask))
        )
        for mask, row, holding in zip(shared, tokens, documents, strict=True)
    ]
