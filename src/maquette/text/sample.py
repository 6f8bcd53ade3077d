"""A sample of a text too large for memory, spread evenly over all of it, in one pass."""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator

from maquette.artifacts import StageError

CHUNK_CHARACTERS = 8192


def spread_sample(texts: Iterable[str], limit_bytes: int, advance: Callable[[float], None] | None = None) -> list[str]:
    """Chunks of the texts, in their order, of at most `limit_bytes` in UTF-8 (one chunk at least where there is text).

    Where everything fits, everything is kept. Else every chunk has the same chance, so each domain has its share
    whatever the order of the documents; which ones are kept depends only on their places (the chunks with the
    lowest hashes of place), so the same texts give the same sample. Never holds more than the limit and one document.
    Calls `advance(bytes read)` after each text. Raises `StageError` for a text that has lone surrogates.
    """
    kept: list[tuple[int, int, bytes]] = []  # a heap: the highest priority, which goes first, is on top
    held = place = 0
    for number, text in enumerate(texts, start=1):
        read = 0
        for chunk in _chunks(text):
            try:
                data = chunk.encode()
            except UnicodeEncodeError as error:
                raise StageError(
                    f"Document {number:,} has a lone surrogate {error.object[error.start]!a}: that is no Unicode text.",
                    'Clean the corpus: read such files with errors="replace".',
                ) from None
            read += len(data)
            held += len(data)
            heapq.heappush(kept, (-_priority(place), place, data))
            while held > limit_bytes and len(kept) > 1:
                held -= len(heapq.heappop(kept)[2])
            place += 1
        if advance is not None:
            advance(read)
    return [data.decode() for _, _, data in sorted(kept, key=lambda entry: entry[1])]


def _chunks(text: str) -> Iterator[str]:
    """Cuts a long text, behind a line end where one is near, so that hardly a word is cut."""
    start = 0
    while start < len(text):
        end = start + CHUNK_CHARACTERS
        if end < len(text):
            end = text.rfind("\n", start + CHUNK_CHARACTERS // 2, end) + 1 or end
        yield text[start:end]
        start = end


def _priority(place: int) -> int:
    return int.from_bytes(hashlib.blake2b(place.to_bytes(8, "big"), digest_size=8).digest(), "big")
