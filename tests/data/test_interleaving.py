"""Domains take turns in exact proportions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.data.interleaving import Interleaving

WEIGHTS = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=9)


@given(weights=WEIGHTS, start=st.integers(0, 10**9), length=st.integers(1, 700))
@settings(max_examples=100, deadline=None)
def test_any_run_of_sequences_holds_each_domain_s_share(weights: list[float], start: int, length: int) -> None:
    domains, _ = Interleaving(weights).deal(np.arange(start, start + length))
    counts = np.bincount(domains, minlength=len(weights))
    shares = np.array(weights) / sum(weights) * length
    # One a level of the tree, shrunk by the share of each level below: never four.
    assert np.all(np.abs(counts - shares) < 4)


@given(weights=WEIGHTS, length=st.integers(0, 2000))
@settings(max_examples=50, deadline=None)
def test_sequences_of_a_domain_are_numbered_without_gaps(weights: list[float], length: int) -> None:
    interleaving = Interleaving(weights)
    domains, numbers = interleaving.deal(np.arange(length))
    for domain in range(len(weights)):
        assert numbers[domains == domain].tolist() == list(range(np.sum(domains == domain)))
    assert interleaving.counts(length).tolist() == np.bincount(domains, minlength=len(weights)).tolist()


def test_halves_alternate() -> None:
    domains, _ = Interleaving([1, 1]).deal(np.arange(6))
    assert sorted(domains[:2]) == sorted(domains[2:4]) == sorted(domains[4:]) == [0, 1]


def test_a_domain_of_weight_zero_is_left_out() -> None:
    interleaving = Interleaving([0.0, 3.0, 0.0])
    assert set(interleaving.deal(np.arange(100))[0]) == {1}
    assert interleaving.counts(100).tolist() == [0, 100, 0]


def test_a_rare_domain_comes_when_its_turn_is() -> None:
    """One in ten thousand: its sequences stand ten thousand apart."""
    domains, _ = Interleaving([0.9999, 0.0001]).deal(np.arange(100_000))
    turns = np.flatnonzero(domains == 1)
    assert len(turns) == 10
    assert np.all(np.abs(np.diff(turns) - 10_000) < 20)
