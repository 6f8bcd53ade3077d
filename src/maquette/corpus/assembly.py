"""The second pass: which split each block goes to, and the texts put together again from what is kept."""

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.progress import progress
from maquette.corpus.config import CorpusConfig
from maquette.corpus.deduplication import Kept, block_document
from maquette.corpus.document import SPLITS, Document, DocumentWriter, read_file
from maquette.corpus.fingerprints import Fingerprints
from maquette.corpus.hashing import Integers
from maquette.corpus.splits import FEWEST_GROUPS, TRAIN, held_out_shares, split_by_position, split_groups


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Of each block (B,): whether it is kept, its split, and the number of the written document it belongs to; a
    document read becomes several where it is parted or lies in two splits. `part_before`: were every block kept."""

    kept: Kept
    split: Integers
    part: Integers
    part_before: Integers


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """What was written, by domain and then split; `digest` is of all documents, in order."""

    documents: dict[str, dict[str, int]]
    bytes: dict[str, dict[str, int]]
    digest: str


def lay_out(
    prints: Fingerprints,
    domain: Integers,
    groups: list[str],
    kept: Kept,
    opens: NDArray[np.bool_],
    config: CorpusConfig,
) -> Layout:
    """Drops what has become too short, and splits the rest by groups (or by position where there are too few)."""
    document = block_document(prints)
    characters = (prints.block_span[:, 1] - prints.block_span[:, 0] + 1).astype(np.int64)
    parted = np.cumsum(opens, dtype=np.int64)
    part = _number(document, parted)
    length = np.bincount(part[kept], characters[kept], int(part.max(initial=-1)) + 1)
    kept = kept & (length >= config.minimum_characters)[part]
    split = np.zeros(kept.size, np.int64)
    sizes = characters * kept
    for number in np.unique(domain[document[kept]]).tolist():
        mine = domain[document] == number
        shares = held_out_shares(int(sizes[mine].sum()), config)
        split[mine] = _split_domain(prints, groups, document, sizes, mine, *shares)
    return Layout(kept, split, _number(document, parted, split), _number(document, split))


def _split_domain(
    prints: Fingerprints,
    groups: list[str],
    document: Integers,
    characters: Integers,
    mine: NDArray[np.bool_],
    validation: float,
    test: float,
) -> Integers:
    """The split of each block of one domain."""
    sizes: dict[str, int] = {}
    by_document = np.bincount(document[mine], characters[mine])
    for number in np.flatnonzero(by_document).tolist():
        sizes[groups[number]] = sizes.get(groups[number], 0) + int(by_document[number])
    if len(sizes) >= FEWEST_GROUPS:
        chosen = split_groups(sizes, validation, test)
        of_document = {number: chosen.get(groups[number], TRAIN) for number in np.unique(document[mine]).tolist()}
        return np.array([of_document[number] for number in document[mine].tolist()], np.int64)
    paragraphs, place = np.unique(prints.block_paragraph[mine], return_inverse=True)
    by_paragraph = np.bincount(place, characters[mine], paragraphs.size)
    full = np.flatnonzero(by_paragraph)
    splits = np.array(split_by_position(by_paragraph[full].astype(int).tolist(), validation, test), np.int64)
    nearest = np.minimum(np.searchsorted(full, np.arange(paragraphs.size)), full.size - 1)
    return splits[nearest][place]


def write_splits(
    domains: list[str], domain: Integers, prints: Fingerprints, layout: Layout, spool: Path, folder: Path
) -> Counts:
    """Writes the three split files from the spooled documents, domain by domain."""
    documents = {name: dict.fromkeys(SPLITS, 0) for name in domains}
    sizes = {name: dict.fromkeys(SPLITS, 0) for name in domains}
    digest = hashlib.sha256()
    borders = np.searchsorted(block_document(prints), np.arange(domain.size + 1))
    with ExitStack() as files, progress("writing the corpus", domain.size, unit="documents") as advance:
        writers = [files.enter_context(DocumentWriter(folder / f"{split}.parquet")) for split in SPLITS]
        for place, name in enumerate(domains):
            numbers = np.flatnonzero(domain == place).tolist()
            for number, document in zip(numbers, read_file(spool / f"{place}.sorted.parquet"), strict=True):
                blocks = np.arange(borders[number], borders[number + 1])
                for split, piece in _pieces(document, prints, layout, blocks):
                    writers[split].write(piece)
                    encoded = piece.text.encode()
                    documents[name][SPLITS[split]] += 1
                    sizes[name][SPLITS[split]] += len(encoded)
                    digest.update(f"{split}\0{piece.id}\0{len(encoded)}\0".encode() + encoded)
                advance(1)
    return Counts(documents, sizes, digest.hexdigest())


def _pieces(
    document: Document, prints: Fingerprints, layout: Layout, blocks: Integers
) -> Iterator[tuple[int, Document]]:
    """The documents that are left of one, with the split of each."""
    chosen = blocks[layout.kept[blocks]]
    if chosen.size == 0:
        return
    if chosen.size == blocks.size and layout.part[chosen[0]] == layout.part[chosen[-1]]:
        yield int(layout.split[chosen[0]]), document
        return
    borders = np.flatnonzero(np.diff(layout.part[chosen])) + 1
    for count, piece in enumerate(np.split(chosen, borders), 1):
        text = _text(document.text, prints, blocks, piece)
        name = document.id if count == 1 else f"{document.id}#{count}"
        yield int(layout.split[piece[0]]), dataclasses.replace(document, id=name, text=text)


def _text(text: str, prints: Fingerprints, blocks: Integers, chosen: Integers) -> str:
    """The chosen blocks' lines; between paragraphs stand as many blank lines as stood before the later one."""
    offset = int(blocks[0])
    spans, paragraphs = prints.block_span[blocks].tolist(), prints.block_paragraph[blocks].tolist()
    pieces: list[str] = []
    last = -1
    for block in (chosen - offset).tolist():
        paragraph = paragraphs[block]
        if pieces and paragraph == last:
            pieces.append("\n")
        elif pieces:
            first = block
            while paragraphs[first - 1] == paragraph:
                first -= 1
            pieces.append(text[spans[first - 1][1] : spans[first][0]])
        last = paragraph
        pieces.append(text[spans[block][0] : spans[block][1]])
    return "".join(pieces)


def _number(*keys: Integers) -> Integers:
    """Numbers runs of equal keys: 0, 0, 1, ... in the order of the blocks."""
    changes = np.zeros(keys[0].size, np.bool_)
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.cumsum(changes)
