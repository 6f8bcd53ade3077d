"""Train, validation and test: a group of documents that belong together is in one split only.

Which group goes where depends on the group's name and on sizes, not on a seed or on the order of reading.
"""

import hashlib
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

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
            free = [name for name in order if chosen[name] == TRAIN]
            chosen[min(free, key=lambda name: sizes[name])] = split
    return chosen


def split_by_position(sizes: Sequence[int], validation: float, test: float) -> list[int]:
    """The split of each of a domain's paragraphs, in order, given their sizes: first train, then validation, then test.

    With at least three paragraphs none of the splits asked for stays empty.
    """
    total = sum(sizes)
    after = 0
    chosen = [TRAIN] * len(sizes)
    for place in range(len(sizes) - 1, -1, -1):
        after += sizes[place]
        chosen[place] = TEST if after <= test * total else VALIDATION if after <= (test + validation) * total else TRAIN
    if len(sizes) >= FEWEST_GROUPS:
        if test > 0:
            chosen[-1] = TEST
        if validation > 0 and VALIDATION not in chosen:
            last = max(place for place, split in enumerate(chosen) if split != TEST)
            chosen[last] = VALIDATION
    return chosen
