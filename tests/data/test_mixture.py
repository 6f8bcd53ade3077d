"""The order of data: exact shares, nothing twice within an epoch, a pure function of (mixture, seed, phase, i)."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.artifacts import ConfigError
from maquette.data import MixtureOrder
from maquette.data.config import MixtureConfig, PhaseConfig

TOKENS = {"books": 300_000, "code": 100_000, "docs": 70_001}
SHORT = {"tiny": 10, "small": 100}


def _order(
    weights: dict[str, float] | None = None,
    phases: tuple[PhaseConfig, ...] = (),
    *,
    tokens: dict[str, int] = TOKENS,
    context: int = 64,
    budget: int = 300_000,
    seed: int = 0,
    block: int = 8,
) -> MixtureOrder:
    config = MixtureConfig(weights=weights or {}, phases=list(phases), block=block)
    return MixtureOrder(config, tokens, context=context, token_budget=budget, seed=seed)


LONG = (PhaseConfig(start=0.5, context_multiple=2, rope_theta=40_000.0), PhaseConfig(start=0.8, weights={"books": 1.0}))


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
    start=st.integers(0, 100_000),
    length=st.integers(100, 500),
)
@settings(max_examples=50, deadline=None)
def test_shares_are_exact_over_any_few_hundred_sequences(weights: list[float], start: int, length: int) -> None:
    order = _order(dict(zip(TOKENS, weights, strict=True)))
    counts = np.bincount(order.locate(np.arange(start, start + length)).domains, minlength=3)
    shares = np.array(weights) / sum(weights) * length
    assert np.all(np.abs(counts - shares) < 4 + 2 * 8 / 4)  # the shuffled blocks at both ends add a little


def test_without_weights_shares_are_those_of_the_text() -> None:
    counts = np.bincount(_order().locate(np.arange(4700)).domains, minlength=3)
    assert counts == pytest.approx(np.array([300, 100, 70]) * 10, abs=5)


@given(
    tokens=st.lists(st.integers(200, 3000), min_size=1, max_size=4),
    context=st.integers(8, 40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_an_epoch_reads_every_window_once(tokens: list[int], context: int, seed: int) -> None:
    named = {f"domain{number}": count for number, count in enumerate(tokens)}
    order = _order(dict.fromkeys(named, 1.0), tokens=named, context=context, seed=seed)
    places = order.locate(np.arange(4 * max(tokens) // context))
    for domain, count in enumerate(tokens):
        starts = places.start_tokens[places.domains == domain]
        windows = (count - 1) // context
        for epoch in range(2):
            read = np.sort(starts[epoch * windows : (epoch + 1) * windows])
            assert len(read) < windows or np.array_equal(read, np.arange(windows) * context)
        assert np.all(starts + context < count)


@given(
    seed=st.integers(0, 1000),
    first=st.floats(0.05, 0.6),
    second=st.floats(0.61, 0.95),
    multiples=st.lists(st.sampled_from([1, 2, 3, 4]), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_phases_of_other_contexts_read_nothing_twice(
    seed: int, first: float, second: float, multiples: list[int]
) -> None:
    phases = tuple(
        PhaseConfig(start=start, context_multiple=multiple)
        for start, multiple in zip((0.0, first, second), multiples, strict=True)
    )
    order = _order({"books": 0.6, "code": 0.25, "docs": 0.15}, phases, budget=350_000, seed=seed)
    places = order.locate(np.arange(350_000 // 64))
    for domain, read in enumerate(order.epochs(350_000 // 64).values()):
        assert read < 0.95
        starts = places.start_tokens[places.domains == domain]
        assert len(np.unique(starts)) == len(starts)
        assert np.all(starts % 64 == 0)


def test_a_longer_context_is_read_as_text_that_stands_side_by_side() -> None:
    order = _order({"books": 0.5, "code": 0.5}, LONG)
    assert [phase.context_multiple for phase in order.phases] == [1, 2, 1]
    long = order.phases[1]
    places = order.locate(np.arange(long.start, order.phases[2].start))
    pairs = places.start_tokens.reshape(-1, 2)
    assert np.all(pairs[:, 1] - pairs[:, 0] == 64)
    assert np.all(places.domains.reshape(-1, 2)[:, 0] == places.domains.reshape(-1, 2)[:, 1])
    # Before it, neighbours in the order are not neighbours in the text more often than chance has it.
    short = order.locate(np.arange(long.start))
    books = short.start_tokens[short.domains == 0]
    assert np.mean(np.abs(np.diff(books)) == 64) < 0.05


def test_phases_start_at_their_share_of_the_budget_whatever_the_batch() -> None:
    order = _order({"books": 0.5, "code": 0.5}, LONG, budget=64 * 4000)
    assert [phase.start for phase in order.phases] == [0, 2000, 3200]
    assert [order.phase_of(index) for index in (0, 1999, 2000, 3199, 3200, 10**6)] == [0, 0, 1, 1, 2, 2]
    assert [phase.rope_theta for phase in order.phases] == [None, 40_000.0, None]
    assert set(order.locate(np.arange(3200, 4000)).domains) == {0}


def test_a_step_across_a_border_belongs_to_the_earlier_phase_in_pieces_that_suit_both() -> None:
    order = _order({"books": 0.5, "code": 0.5}, LONG, budget=64 * 4000)
    assert order.step_phase(1990, 2000) == (0, 1)
    assert order.step_phase(1996, 2004) == (0, 1)
    assert order.step_phase(2000, 2012) == (1, 2)
    assert order.step_phase(3192, 3204) == (1, 1)


def test_the_order_does_not_depend_on_the_budget() -> None:
    short, long = _order(budget=10_000), _order(budget=1_000_000)
    assert short.fingerprint == long.fingerprint
    for result, expected in zip(
        *(dataclasses.astuple(order.locate(range(20))) for order in (short, long)), strict=True
    ):
        assert result.tolist() == expected.tolist()


def test_sequences_are_found_one_by_one_or_together() -> None:
    order = _order({"books": 0.5, "code": 0.3, "docs": 0.2}, LONG)
    indices = np.random.default_rng(0).permutation(5000)[:300]
    places = order.locate(indices)
    for k, index in enumerate(indices):
        one = order.locate([int(index)])
        assert (one.phases, one.domains, one.start_tokens) == (
            places.phases[k], places.domains[k], places.start_tokens[k],
        )  # fmt: skip


def test_a_domain_s_text_comes_in_the_same_order_in_every_mixture() -> None:
    def code(order: MixtureOrder) -> np.ndarray:
        places = order.locate(np.arange(2000))
        return places.start_tokens[places.domains == 1]

    many, few = code(_order({"code": 0.8, "docs": 0.2})), code(_order({"code": 0.1, "books": 0.9}))
    assert len(few) > 150
    assert few.tolist() == many[: len(few)].tolist()


def test_seeds_give_other_orders() -> None:
    one, two = _order(seed=0), _order(seed=1)
    assert one.fingerprint != two.fingerprint
    assert not np.array_equal(one.locate(np.arange(50)).start_tokens, two.locate(np.arange(50)).start_tokens)


def test_epochs_count_passes_over_each_domain() -> None:
    order = _order({"books": 0.5, "docs": 0.5}, LONG, budget=64 * 4000)
    places = order.locate(np.arange(3600))
    counted = np.bincount(places.domains, minlength=3) * 64 / np.array([300_000, 100_000, 70_001])
    assert list(order.epochs(3600).values()) == pytest.approx(counted.tolist(), rel=1e-3)
    assert order.epochs(0) == {"books": 0.0, "code": 0.0, "docs": 0.0}
    assert order.epochs(3600)["docs"] > 1.4


def test_an_order_written_down() -> None:
    """Any change of this order would silently give every run of the past other data."""
    order = _order({"books": 0.5, "code": 0.3, "docs": 0.2})
    places = order.locate([0, 1, 2, 3, 10_000])
    result = [(order.domains[d], start) for d, start in zip(places.domains, places.start_tokens.tolist(), strict=True)]
    assert result == [("docs", 768), ("code", 56320), ("books", 55936), ("books", 16384), ("books", 286080)]


@pytest.mark.parametrize(
    ("weights", "phases", "words"),
    [
        ({"bocks": 1.0}, (), ["'bocks'", "'books'", "books, code, docs"]),
        ({"books": -1.0}, (), ["books is -1.0"]),
        ({"books": float("nan")}, (), ["books is nan"]),
        ({"books": 0.0}, (), ["All weights"]),
        ({"tiny": 1.0}, (), ["tiny has 10 training tokens", "65"]),
        ({"small": 1.0}, (PhaseConfig(start=0.5, context_multiple=2),), ["small has 100 training tokens", "129"]),
        ({}, (PhaseConfig(start=0.5), PhaseConfig(start=0.4)), ["[0.5, 0.4]"]),
        ({}, (PhaseConfig(start=0.5, weights={"dogs": 1.0}),), ["'dogs'", "'docs'"]),
    ],
)
def test_what_makes_no_sense_is_refused(weights, phases, words) -> None:
    with pytest.raises(ConfigError) as caught:
        _order(
            weights,
            phases,
            tokens={**TOKENS, "tiny": 10, "small": 100} if "tiny" in weights or "small" in weights else TOKENS,
        )
    for word in words:
        assert word in str(caught.value)


def test_without_weights_a_domain_too_short_for_a_sequence_is_left_out() -> None:
    order = _order(tokens={**TOKENS, "tiny": 10})
    assert order.phases[0].weights["tiny"] == 0.0
    assert order.domains == ("books", "code", "docs", "tiny")
    with pytest.raises(ConfigError, match="No domain has 65"):
        _order(tokens={"tiny": 10})
