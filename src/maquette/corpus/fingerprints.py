"""What deduplication knows of a text: its tokens' hashes, its paragraphs and blocks, and MinHash signatures.

A *paragraph* is a run of lines with no blank one between. A *block* is what deduplication takes out as a whole: a
paragraph, or where its lines hang below shallower ones, one such item (a parameter and its description, a statement
and its body), so that what remains still reads well.

Everything is computed at once for a batch of documents, in numpy.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.corpus.hashing import Hashes, Integers, characters, sequence_hashes, tokenize, window_hashes
from maquette.corpus.near_duplicates import Signatures, signatures

SHINGLE = 5  # tokens: one changed word in fifty leaves a similarity of about 0.8
SHORTEST_SIGNED = 16  # paragraphs with fewer tokens get no signature
PERMUTATIONS = 64

_CONTINUING = ("else", "elif", "except", "finally", "case", "catch", ")", "]", "}")
_DECORATOR = "@"


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of D documents with P paragraphs, B blocks and T tokens, each in the order of the text.

    `tokens` (T,) hashes; `block_size` (B,) tokens; `block_span` (B, 2) offsets of its lines in its document, without
    the last line's end; `block_paragraph` (B,); `paragraph_document` (P,); `paragraph_hash` (P,) of its tokens;
    `signature` (S, PERMUTATIONS) of the S paragraphs `signed`.
    """

    documents: int
    tokens: Hashes
    block_size: Integers
    block_span: NDArray[np.int32]
    block_paragraph: Integers
    paragraph_document: Integers
    paragraph_hash: Hashes
    signature: Signatures
    signed: Integers

    @staticmethod
    def concatenate(parts: list["Fingerprints"]) -> "Fingerprints":
        """The fingerprints of the documents of all `parts`, in order."""
        documents = np.cumsum([0] + [part.documents for part in parts])
        paragraphs = np.cumsum([0] + [part.paragraph_hash.size for part in parts])
        offsets = {"paragraph_document": documents, "block_paragraph": paragraphs, "signed": paragraphs}
        columns = {
            field.name: [getattr(part, field.name) for part in parts]
            for field in dataclasses.fields(Fingerprints)
            if field.name != "documents"
        }
        for name, firsts in offsets.items():
            columns[name] = [column + first for column, first in zip(columns[name], firsts, strict=False)]
        joined: dict[str, Any] = {name: np.concatenate(column) for name, column in columns.items()}
        return Fingerprints(documents=int(documents[-1]), **joined)


def fingerprint(texts: list[str]) -> Fingerprints:
    """The fingerprints of a batch of texts (lines end with a line feed)."""
    # The texts are joined by a blank line, so that no paragraph crosses a border.
    borders = np.cumsum([0] + [len(text) + 2 for text in texts])
    points = characters("\n\n".join(texts))
    starts, tokens = tokenize(points)
    lines = np.append(0, np.flatnonzero(points == ord("\n")) + 1)
    first_token = np.searchsorted(starts, lines)
    filled = np.flatnonzero(np.diff(first_token, append=starts.size))  # lines that are not blank
    first_token, begin = first_token[filled], lines[filled]
    end = np.append(lines[1:] - 1, points.size)[filled]

    opens_paragraph = np.diff(filled, prepend=-2) > 1
    paragraph = np.cumsum(opens_paragraph) - 1
    opens_block = opens_paragraph | _opens_item(starts[first_token] - begin, tokens[first_token], paragraph)
    block_first = np.flatnonzero(opens_block)
    paragraph_first = np.flatnonzero(opens_paragraph)
    block_last = np.append(block_first, filled.size)[1:] - 1

    document = np.searchsorted(borders, begin, side="right") - 1
    span = np.stack([begin[block_first], end[block_last]], 1) - borders[document[block_first]][:, None]
    signature, signed = _signatures(tokens, first_token[paragraph_first])
    return Fingerprints(
        documents=len(texts),
        tokens=tokens,
        block_size=np.diff(first_token[block_first], append=tokens.size),
        block_span=span.astype(np.int32),
        block_paragraph=paragraph[block_first],
        paragraph_document=document[paragraph_first],
        paragraph_hash=sequence_hashes(tokens, first_token[paragraph_first]),
        signature=signature,
        signed=signed,
    )


def _opens_item(indent: Integers, word: Hashes, paragraph: Integers) -> NDArray[np.bool_]:
    """Which lines open an item within their paragraph, from each line's indentation, first token and paragraph.

    A line as shallow as any of the paragraph opens an item where a deeper line follows it or stands before it.
    Not so a closing bracket, an `else` or what follows a decorator: they belong to what is above them.
    """
    if indent.size == 0:
        return np.empty(0, np.bool_)
    first = np.flatnonzero(np.diff(paragraph, prepend=-1))
    deeper = indent > np.minimum.reduceat(indent, first)[paragraph]
    before = np.append(False, deeper[:-1])
    after = np.append(deeper[1:] & (paragraph[1:] == paragraph[:-1]), False)
    continuing = np.isin(word, _token_hashes(_CONTINUING))
    decorated = np.append(False, word[:-1] == _token_hashes((_DECORATOR,))[0])
    return ~deeper & (before | after) & ~continuing & ~decorated


def _token_hashes(words: tuple[str, ...]) -> Hashes:
    return tokenize(characters(" ".join(words)))[1]


def _signatures(tokens: Hashes, paragraph_start: Integers) -> tuple[Signatures, Integers]:
    """Signatures (S, PERMUTATIONS) of the shingles of the paragraphs long enough, and which those are (S,)."""
    size = np.diff(paragraph_start, append=tokens.size)
    signed = np.flatnonzero(size >= SHORTEST_SIGNED)
    count = size[signed] - SHINGLE + 1  # shingles of each paragraph
    first = np.cumsum(count) - count
    positions = np.arange(int(count.sum())) + np.repeat(paragraph_start[signed] - first, count)
    return signatures(window_hashes(tokens, SHINGLE)[positions], first, PERMUTATIONS), signed
