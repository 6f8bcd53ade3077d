"""Probes of copying: what is repeated on purpose, what is found, and that it is judged at the right places."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maquette.data import TokenBatch
from maquette.data.copying import (
    FIRST,
    RUN_LENGTH,
    SECOND,
    TOKEN_KINDS,
    copying_probes,
    natural_repeats,
    repeated_halves,
    token_kinds,
)

WINDOW = np.arange(100, 117)[None]  # 17 tokens: 8 and 8, and one over


def test_both_halves_are_repeated() -> None:
    tokens, marks = repeated_halves(WINDOW, document_id=0)
    first, other = list(range(100, 108)), list(range(108, 116))
    assert tokens.tolist() == [[0, *other, *first], [0, *first, *first]]
    assert marks.shape == (2, 16)
    # The same targets count in both, after the first few of the run.
    assert np.flatnonzero(marks[0]).tolist() == np.flatnonzero(marks[1]).tolist() == [12, 13, 14, 15]
    assert set(marks[0][12:]) == {FIRST} and set(marks[1][12:]) == {SECOND}
    assert tokens[0, 1:][marks[0] == FIRST].tolist() == tokens[1, 1:][marks[1] == SECOND].tolist() == first[RUN_LENGTH:]


def test_natural_repeats_are_marked_at_their_last_token() -> None:
    window = np.array([[1, 2, 3, 9, 1, 2, 3, 7, 1, 2, 3]])
    assert natural_repeats(window, 3).tolist() == [[0, FIRST, 0, 0, 0, SECOND, 0, 0, 0, 0]]


@given(st.lists(st.integers(0, 2), min_size=12, max_size=40))
def test_first_and_second_are_the_same_tokens(tokens: list[int]) -> None:
    window = np.array([tokens])
    marks = natural_repeats(window, RUN_LENGTH)[0]
    runs = [
        sorted(tuple(tokens[target + 2 - RUN_LENGTH : target + 2]) for target in np.flatnonzero(marks == mark))
        for mark in (FIRST, SECOND)
    ]
    assert runs[0] == runs[1]


def test_probes_are_the_same_every_time_and_whole() -> None:
    windows = np.random.default_rng(0).integers(1, 50, (5, 33))
    made, again = (copying_probes(windows, 0, batch=4) for _ in range(2))
    assert [probe.batch.tokens.tolist() for probe in made] == [probe.batch.tokens.tolist() for probe in again]
    assert [len(probe.marks) for probe in made if probe.kind == "text"] == [4, 4, 2]
    assert sum(len(probe.marks) for probe in made) == 5 * len(windows)
    assert all(probe.marks.shape == probe.batch.targets.shape for probe in made)
    drawn = np.concatenate([probe.batch.tokens[:, 1:].numpy().ravel() for probe in made if probe.kind == "random"])
    assert set(drawn) <= set(windows.ravel())


def test_short_windows_give_none() -> None:
    assert copying_probes(np.zeros((3, 9), np.int64), 0, batch=4) == []
    assert copying_probes(np.zeros((0, 65), np.int64), 0, batch=4) == []


def by_hand(tokens: list[int], segments: list[int]) -> list[str]:
    """The kind of each predicted token, one after the other."""
    kinds, followed = ["new"], {}
    for place in range(1, len(tokens) - 1):
        pair, target = (segments[place], *tokens[place - 1 : place + 1]), tokens[place + 1]
        if segments[place - 1] != segments[place]:
            kinds.append("new")
            continue
        kinds.append("new" if pair not in followed else "hit" if followed[pair] == target else "miss")
        followed[pair] = target
    return kinds


@pytest.mark.parametrize("masked", [False, True])
def test_every_token_is_of_the_kind_that_going_through_the_text_finds(masked: bool) -> None:
    numbers = np.random.default_rng(0)
    tokens = torch.tensor(numbers.integers(0, 4, (6, 41)))
    segments = torch.cumsum(tokens[:, :-1] == 0, dim=1) if masked else None
    kinds = token_kinds(TokenBatch(tokens, torch.zeros(6), segments))
    rows = segments if segments is not None else torch.zeros(6, 40, dtype=torch.int64)
    expected = [by_hand(*pair) for pair in zip(tokens.tolist(), rows.tolist(), strict=True)]
    assert [[TOKEN_KINDS[kind] for kind in row] for row in kinds.tolist()] == expected
    assert set(kinds.unique().tolist()) == {0, 1, 2}


def test_windows_of_a_token_or_two_hold_new_ones() -> None:
    for length in (2, 3):
        assert token_kinds(TokenBatch(torch.ones(2, length, dtype=torch.int64), torch.zeros(2))).eq(0).all()
