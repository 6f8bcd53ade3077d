"""Train, validation and test: which split each block goes to, and the texts put together again from what is kept.

A group of documents that belong together is in one split only. Which group goes where depends on the group's name and
on sizes, not on a seed or on the order of reading.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.progress import progress
from maquette.corpus.config import CorpusConfig
from maquette.corpus.deduplication import Kept, block_document
from maquette.corpus.document import SPLITS, Document, DocumentWriter, read_file
from maquette.corpus.fingerprints import Fingerprints
from maquette.corpus.hashing import Integers

TRAIN, VALIDATION, TEST = range(len(SPLITS))

MOST_OF_SMALL = 0.1
"""No more of a small domain than this is held out for each split to reach `held_out_characters`."""

FEWEST_GROUPS = 3
"""A domain with fewer groups is cut by position instead: its end is held out."""


def group_of(document: Document) -> str:
    """What must stay together: `meta["group"]` where there is one, else the host of the URL, else the document."""
    group = document.meta.get("group")
    if isinstance(group, str) and group:
        return group
    try:
        host = urlsplit(document.url or "").hostname
    except ValueError:
        host = None
    return host or document.id


def held_out_shares(characters: int, config: CorpusConfig) -> tuple[float, float]:
    """The shares of a domain to hold out for validation and for test: those of the config, more of a small domain."""
    enough = min(config.held_out_characters / max(characters, 1), MOST_OF_SMALL)
    shares = [max(share, enough) if share > 0 else 0.0 for share in (config.validation, config.test)]
    return shares[0], shares[1]


def split_groups(sizes: Mapping[str, int], validation: float, test: float) -> dict[str, int]:
    """The split of each group, given the groups' sizes and the shares to hold out.

    In the order of a hash of their names, groups go to test while they fit into its share, then to validation, and
    the rest is trained on. With at least three groups none of the splits asked for stays empty.
    """
    total = sum(sizes.values())
    order = sorted(sizes, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    space = {TEST: test * total, VALIDATION: validation * total}
    chosen = dict.fromkeys(order, TRAIN)
    for name in order:
        for split in (TEST, VALIDATION):
            if sizes[name] <= space[split]:
                chosen[name] = split
                space[split] -= sizes[name]
                break
    for split, share in ((TEST, test), (VALIDATION, validation)):
        if share > 0 and split not in chosen.values() and len(order) >= FEWEST_GROUPS:
            counts = Counter(chosen.values())
            giving = TRAIN if counts[TRAIN] > 1 else counts.most_common(1)[0][0]
            free = [name for name in order if chosen[name] == giving]
            chosen[min(free, key=lambda name: sizes[name])] = split
    return chosen


def split_by_position(sizes: Sequence[int], validation: float, test: float) -> list[int]:
    """The split of each of a domain's paragraphs, in order, given their sizes: first train, then validation, then test.

    With at least three paragraphs none of the splits asked for stays empty.
    """
    after = np.cumsum(np.array(sizes[::-1], np.float64))[::-1]  # what each paragraph and those behind it hold
    count, total = len(sizes), float(sum(sizes))
    test_from = int((after > test * total).sum())
    validation_from = int((after > (validation + test) * total).sum())
    if count >= FEWEST_GROUPS:
        if test > 0:
            test_from = min(max(test_from, 2 if validation > 0 else 1), count - 1)
        if validation > 0:
            validation_from = min(validation_from, test_from - 1)
    chosen = np.full(count, TRAIN)
    chosen[validation_from:] = VALIDATION
    chosen[test_from:] = TEST
    return chosen.tolist()


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Of each block (B,): whether it is kept, its split, and the number of the written document it belongs to; a
    document read becomes several where it is parted or lies in two splits. `part_before`: were every block kept."""

    retained: Kept
    split: Integers
    part: Integers
    part_before: Integers


def lay_out(
    prints: Fingerprints,
    domain: Integers,
    groups: list[str],
    retained: Kept,
    opens: NDArray[np.bool_],
    config: CorpusConfig,
) -> Layout:
    """Drops what has become too short, and splits the rest by groups (or by position where there are too few)."""
    document = block_document(prints)
    characters = (prints.block_span[:, 1] - prints.block_span[:, 0] + 1).astype(np.int64)
    parted = np.cumsum(opens, dtype=np.int64)
    part = _number(document, parted)
    length = np.bincount(part[retained], characters[retained], int(part.max(initial=-1)) + 1)
    retained = retained & (length >= config.minimum_characters)[part]
    split = np.zeros(retained.size, np.int64)
    sizes = characters * retained
    for number in np.unique(domain[document[retained]]).tolist():
        mine = domain[document] == number
        shares = held_out_shares(int(sizes[mine].sum()), config)
        split[mine] = _split_domain(prints, groups, document, sizes, mine, *shares)
    return Layout(retained, split, _number(document, parted, split), _number(document, split))


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
    sizes = Counter[str]()
    by_document = np.bincount(document[mine], characters[mine])
    for number in np.flatnonzero(by_document).tolist():
        sizes[groups[number]] += int(by_document[number])
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
) -> tuple[dict[str, dict[str, dict[str, int]]], str]:
    """Writes the three split files from the spooled documents, domain by domain. Returns `documents` and `bytes` by
    domain and split, and the digest of all documents, in order."""
    counts = {name: {split: {"documents": 0, "bytes": 0} for split in SPLITS} for name in domains}
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
                    counts[name][SPLITS[split]]["documents"] += 1
                    counts[name][SPLITS[split]]["bytes"] += len(encoded)
                    digest.update(f"{split}\0{piece.id}\0{len(encoded)}\0".encode() + encoded)
                advance(1)
    return counts, digest.hexdigest()


def _pieces(
    document: Document, prints: Fingerprints, layout: Layout, blocks: Integers
) -> Iterator[tuple[int, Document]]:
    """The documents that are left of one, with the split of each."""
    chosen = blocks[layout.retained[blocks]]
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
