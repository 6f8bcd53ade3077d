"""Train, validation and test: a group of documents that belong together is in one split only.

Which group goes where depends on the group's name and on sizes, not on a seed or on the order of reading.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import numpy as np

from maquette.corpus.config import CorpusConfig
from maquette.corpus.document import SPLITS, Document

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
    room = {TEST: test * total, VALIDATION: validation * total}
    chosen = dict.fromkeys(order, TRAIN)
    for name in order:
        for split in (TEST, VALIDATION):
            if sizes[name] <= room[split]:
                chosen[name] = split
                room[split] -= sizes[name]
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
