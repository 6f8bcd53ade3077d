import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.corpus import deduplication
from maquette.corpus.deduplication import FRAME, repeated_windows, repetition_rates, windows
from maquette.corpus.hashing import repeats


@given(st.lists(st.integers(0, 40) | st.integers(2**63, 2**63 + 4), max_size=60))
def test_repeats_are_all_values_that_occur_more_than_once(values: list[int]) -> None:
    result = repeats(np.array(values, np.uint64))
    groups = np.split(result.positions, result.starts[1:]) if result.starts.size else []
    expected = {tuple(i for i, other in enumerate(values) if other == value) for value in values}
    assert {tuple(group.tolist()) for group in groups} == {places for places in expected if len(places) > 1}
    assert [len(group) for group in groups] == np.bincount(result.groups).tolist()


def test_low_bits_alone_do_not_make_values_equal() -> None:
    values = np.array([8, 9, 10, 11, 8], np.uint64)  # five values: the low three bits give way to the index
    assert repeats(values).positions.tolist() == [0, 4]


def test_windows_stay_inside_their_document() -> None:
    tokens = np.arange(10, dtype=np.uint64)
    _, places = windows(tokens, np.array([0] * 4 + [1] * 6, np.int32), 3)
    assert places.tolist() == [0, 1, 4, 5, 6, 7]


@pytest.mark.parametrize("at_once", [1 << 26, 40])
def test_repeated_windows_are_found_in_parts_too(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication, "_AT_ONCE", at_once)
    stream = np.array([*range(100), *range(20, 50), *range(200, 300)], np.uint64)
    result = repeated_windows(stream, np.zeros(stream.size, np.int32), 8)
    pairs = {tuple(pair) for pair in np.split(result.positions, result.starts[1:])}
    assert {tuple(map(int, pair)) for pair in pairs} == {(20 + i, 100 + i) for i in range(23)}


def tokens(*numbers: int) -> list[int]:
    """Two frames' worth of tokens: the given runs of 24, and in between nothing that stands twice."""
    global fresh
    stream: list[int] = []
    for number in numbers:
        stream += [number * 1000 + place for place in range(24)]
        stream += range(fresh, fresh + 8)
        fresh += 8
    while len(stream) < 2 * FRAME:
        stream.append(fresh)
        fresh += 1
    return stream


fresh = 10**6


def test_rates_by_hand() -> None:
    documents = [
        (tokens(1, 2), 0),  # training, domain a: nothing before it
        (tokens(1, 3), 2),  # training, domain b: its first frame repeats
        (tokens(4, 4), 2),  # repeats itself, in its first frame
        (tokens(2, 5), 1),  # held out: shares 2 with training
        (tokens(6, 5), 1),  # shares 5, but with held-out text only
        (tokens(7, 8, 9, 3), 3),  # shares 3, in its first frame
    ]
    stream = np.array([token for document, _ in documents for token in document], np.uint64)
    document = np.repeat(np.arange(6, dtype=np.int32), 2 * FRAME)
    parts = np.array([part for _, part in documents])
    rates = repetition_rates(stream, document, parts, np.array([False, True, False, True]), 24)
    assert rates == [0 / 2, 1 / 4, 2 / 4, 1 / 2]


def test_nothing_repeats_in_nothing() -> None:
    rates = repetition_rates(
        np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int64), np.array([False]), 24
    )
    assert rates == [0.0]
