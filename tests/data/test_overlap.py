"""Runs of tokens that stand in two places, against brute force."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.data.overlap import covered, kept_runs, run_hashes, shared_windows

TEXT = st.lists(st.integers(0, 2), max_size=60)


def _runs(tokens: list[int], window: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[start : start + window]) for start in range(len(tokens) - window + 1)]


@given(tokens=TEXT, window=st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_equal_runs_have_equal_hashes_and_others_do_not(tokens: list[int], window: int) -> None:
    hashes = run_hashes(np.array(tokens, dtype=np.uint16), window)
    runs = _runs(tokens, window)
    assert len(hashes) == len(runs)
    assert len(set(hashes.tolist())) == len(set(runs))
    assert len(set(zip(hashes.tolist(), runs, strict=True))) == len(set(runs))


@given(held_out=st.lists(TEXT, max_size=3), training=st.lists(TEXT, max_size=3), window=st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_shared_runs_are_those_that_stand_in_both(held_out, training, window: int) -> None:
    seen = {run for text in training for run in _runs(text, window)}
    result = shared_windows(
        [np.array(text, dtype=np.uint16) for text in held_out],
        [np.array(text, dtype=np.uint32) for text in training],
        window,
    )
    assert [mask.tolist() for mask in result] == [[run in seen for run in _runs(text, window)] for text in held_out]


def test_covered_marks_every_token_of_a_marked_run() -> None:
    shared = np.array([False, True, False, True, False, False, False])
    assert covered(shared, 9, 3).astype(int).tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0]


def test_kept_runs_are_long_enough() -> None:
    dropped = np.array([0, 0, 0, 1, 0, 1, 1, 0, 0], dtype=bool)
    assert kept_runs(dropped, 2) == [(0, 3), (7, 9)]
    assert kept_runs(np.ones(4, dtype=bool), 1) == []
