"""The order of data: keyed permutations are bijections without a visible pattern; interleaving keeps proportions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.corpus.hashing import mix
from maquette.data.order import Interleaving, derive, key_of, permute


def _whole(size: int, key: np.uint64) -> np.ndarray:
    return permute(np.arange(size), np.full(size, size), np.full(size, key))


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_every_place_is_taken_once(size: int, key: int) -> None:
    assert np.array_equal(np.sort(_whole(size, np.uint64(key))), np.arange(size))


def test_elements_of_different_permutations_may_stand_in_one_call() -> None:
    sizes = np.array([7, 7, 100, 10**12])
    keys = derive(np.uint64(5), np.arange(4))
    indices = np.array([0, 6, 50, 10**12 - 1])
    together = permute(indices, sizes, keys)
    alone = [permute(indices[k : k + 1], sizes[k : k + 1], keys[k : k + 1])[0] for k in range(4)]
    assert together.tolist() == alone
    assert np.all((together >= 0) & (together < sizes))


def test_an_element_lands_anywhere_with_equal_chance() -> None:
    """Pearson's chi-squared over 20,000 keys, 11 places: 99.9% quantile of 10 degrees of freedom is 29.6."""
    trials, size = 20_000, 11
    keys = derive(key_of("chance"), np.arange(trials))
    for element in (0, 5, 10):
        landed = permute(np.full(trials, element), np.full(trials, size), keys)
        counts = np.bincount(landed, minlength=size)
        assert ((counts - trials / size) ** 2 / (trials / size)).sum() < 29.6


def test_neighbours_are_torn_apart() -> None:
    places = _whole(10_000, key_of(1))
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.05
    assert np.mean(np.diff(places) == 1) < 0.002


def test_keys_are_the_same_on_every_machine() -> None:
    assert key_of(0, "domain", "code") == np.uint64(12218585064572114341)
    # SplitMix64's first output for seed 0, as published with the algorithm.
    assert mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0] == np.uint64(0xE220A8397B1DCDAF)


def test_a_permutation_written_down() -> None:
    """Any change of this order would silently give every run of the past other data."""
    assert _whole(12, key_of(0, "domain", "code")).tolist() == [0, 3, 10, 7, 4, 5, 2, 8, 6, 1, 9, 11]


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
