"""Lines that a host repeats from page to page: headers, footers, menus. Found by hashing lines, over all its pages."""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.config import BoilerplateLinesConfig
from maquette.corpus.document import Document
from maquette.corpus.hashing import Hashes, characters, sequence_hashes, tokenize, without_digits

_LONGEST = 200  # characters: what is longer is a text, and paragraph deduplication's to judge


def line_hashes(text: str, host: str) -> tuple[list[str], Hashes]:
    """The lines of a text and a hash of each with its host, `(lines,)`; 0 for blank and long ones.

    Two lines are equal when their tokens are: digits count as one, so `Page 3 of 9` and `Page 4 of 9` are equal.
    """
    lines = text.split("\n")
    # One token stream for the whole text, cut at the lines' ends.
    points = characters(text)
    starts, tokens = tokenize(without_digits(points))
    if starts.size == 0:
        return lines, np.zeros(len(lines), np.uint64)
    ends = np.append(np.flatnonzero(points == ord("\n")), points.size)
    begins = np.append(0, ends + 1)
    lengths = np.diff(begins) - 1
    first = np.searchsorted(starts, begins)
    filled = np.flatnonzero(np.diff(first))
    hashes = np.zeros(len(lines), np.uint64)
    hashes[filled] = sequence_hashes(tokens, first[filled]) ^ _host_hash(host)
    hashes[lengths > _LONGEST] = 0
    return lines, hashes


@functools.lru_cache(maxsize=1024)
def _host_hash(host: str) -> np.uint64:
    _, tokens = tokenize(characters(host or "-"))
    return np.uint64(sequence_hashes(tokens, np.zeros(1, np.int64))[0])


@dataclasses.dataclass(frozen=True, slots=True)
class BoilerplateLines:
    """Hashes (with their hosts) of the lines to take out, sorted."""

    hashes: Hashes

    def strip(self, document: Document, host: str) -> Document:
        """The document without these lines."""
        if self.hashes.size == 0 or not host:
            return document
        lines, hashes = line_hashes(document.text, host)
        place = np.minimum(np.searchsorted(self.hashes, hashes), self.hashes.size - 1)
        repeated = (self.hashes[place] == hashes) & (hashes != 0)
        if not repeated.any():
            return document
        text_left = "\n".join(line for line, gone in zip(lines, repeated.tolist(), strict=True) if not gone)
        return dataclasses.replace(document, text=text_left.strip("\n"))


def repeated_lines(
    hashes: Hashes, host: NDArray[np.int64], pages: NDArray[np.int64], config: BoilerplateLinesConfig
) -> Hashes:
    """Which lines to take out.

    `hashes` (L,) has each line of each page once, `host` (L,) the number of its host, `pages` (hosts,) the pages of
    each host. A line goes where it stands on `config.pages` pages and on `config.share` of its host's.
    """
    if config.pages is None or hashes.size == 0:
        return np.empty(0, np.uint64)
    distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    enough = np.maximum(config.pages, config.share * pages[host[first]])
    chosen: Hashes = distinct[(counts >= enough) & (distinct != 0)]
    return chosen
