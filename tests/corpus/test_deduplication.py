import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.corpus.deduplication import (
    drop_duplicate_documents,
    drop_duplicate_paragraphs,
    drop_empty_headings,
    drop_near_duplicates,
    drop_repeated_windows,
)
from maquette.corpus.fingerprints import PERMUTATIONS, Fingerprints, fingerprint
from maquette.corpus.near_duplicates import bands_and_rows


def everything(prints: Fingerprints) -> np.ndarray:
    return np.ones(prints.block_size.size, np.bool_)


def words(first: int, count: int) -> str:
    return " ".join(f"w{number}" for number in range(first, first + count))


def test_of_equal_documents_the_first_is_kept() -> None:
    prints = fingerprint(["a b c\n\nd", "a b  c\nd", "a b c\n\ne", "a b c d"])
    assert drop_duplicate_documents(prints, everything(prints)).tolist() == [True, True, False, True, True, False]


def test_of_equal_paragraphs_the_first_is_kept_and_headings_all() -> None:
    long, short = words(0, 8), words(0, 7)
    prints = fingerprint([f"{long}\n\n{short}", f"{short}\n\n{long}\n\n{long}"])
    assert drop_duplicate_paragraphs(prints, everything(prints)).tolist() == [True, True, True, False, False]


def test_of_similar_paragraphs_the_first_is_kept() -> None:
    base = words(0, 100).split()
    near, far = [*base], [*base]
    near[50] = "other"  # 5 of 96 shingles differ: similarity 0.90
    far[10] = far[30] = far[50] = far[70] = far[90] = "other"  # 25 of 96: 0.59
    prints = fingerprint([" ".join(base), " ".join(far), " ".join(near)])
    assert drop_near_duplicates(prints, everything(prints), 0.75).tolist() == [True, True, False]
    assert drop_near_duplicates(prints, everything(prints), 0.4).tolist() == [True, False, False]
    assert drop_near_duplicates(prints, everything(prints), 1.0).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95])
def test_similar_paragraphs_become_candidates(threshold: float) -> None:
    bands, rows = bands_and_rows(PERMUTATIONS, threshold)
    assert 1 - (1 - threshold**rows) ** bands > 0.63  # at the threshold; more above it
    assert bands == 1 or 1 - (1 - (threshold / 2) ** rows) ** bands < 0.55


def test_a_block_that_repeats_a_window_is_dropped() -> None:
    run = words(0, 10)
    prints = fingerprint([f"{run} a", f"b {run}\n\nc d e\n\n{words(100, 10)}"])
    retained, opens = drop_repeated_windows(prints, everything(prints), 10)
    assert retained.tolist() == [True, False, True, True]
    assert not opens.any()
    retained, _ = drop_repeated_windows(prints, everything(prints), 11)
    assert retained.all()


def test_a_block_that_repeats_itself_is_dropped() -> None:
    prints = fingerprint([f"{words(0, 10)} {words(0, 10)}", words(20, 10)])
    assert drop_repeated_windows(prints, everything(prints), 10)[0].tolist() == [False, True]


def test_windows_that_form_where_a_block_fell_out_are_found_too() -> None:
    prints = fingerprint(
        [
            words(50, 20),
            f"{words(0, 10)} {words(10, 10)}",
            f"x {words(0, 10)}\n\n{words(50, 20)}\n\n{words(10, 10)}",  # its ends meet, and say what was said
        ]
    )
    retained, _ = drop_repeated_windows(prints, everything(prints), 20)
    assert retained.tolist() == [True, True, True, False, False]


def test_headings_without_text_are_dropped() -> None:
    prints = fingerprint([f"one\n\n{words(0, 9)}\n\ntwo\n\n{words(20, 9)}\n\nthree\n\n{words(40, 9)}"])
    retained = everything(prints)
    retained[[1, 5]] = False  # the text of one and of three
    assert drop_empty_headings(prints, retained).tolist() == [False, False, True, True, False, False]


texts = st.lists(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=14).map(" ".join), min_size=1, max_size=6).map(
        "\n\n".join
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(texts)
def test_no_window_stands_twice_in_what_is_kept(documents: list[str]) -> None:
    prints = fingerprint(documents)
    retained, opens = drop_repeated_windows(prints, everything(prints), 8)
    owner = prints.paragraph_document[prints.block_paragraph]
    parts: dict[tuple[int, int], list[str]] = {}
    for block, part in enumerate(np.cumsum(opens)):
        if retained[block]:
            begin, end = prints.block_span[block]
            text = documents[owner[block]][begin:end]
            parts.setdefault((int(owner[block]), int(part)), []).extend(re.findall(r"\w+", text))
    counts = Counter(tuple(part[i : i + 8]) for part in parts.values() for i in range(len(part) - 7))
    assert all(count == 1 for count in counts.values())
