import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.corpus.config import CorpusConfig
from maquette.corpus.document import Document
from maquette.corpus.splits import TEST, TRAIN, VALIDATION, group_of, held_out_shares, split_by_position, split_groups

SIZES = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 1000), min_size=3, max_size=40)
SHARES = st.floats(0.01, 0.3)


@given(SIZES, SHARES, SHARES)
def test_no_split_stays_empty(sizes: dict[str, int], validation: float, test: float) -> None:
    chosen = split_groups(sizes, validation, test)
    assert chosen.keys() == sizes.keys()
    assert set(chosen.values()) == {TRAIN, VALIDATION, TEST}


@given(SIZES, SHARES)
def test_splits_do_not_depend_on_the_order_of_reading(sizes: dict[str, int], share: float) -> None:
    assert split_groups(dict(reversed(sizes.items())), share, share) == split_groups(sizes, share, share)


def test_shares_are_met_with_many_groups() -> None:
    sizes = {f"group {number}": 50 + number % 100 for number in range(1000)}
    chosen = split_groups(sizes, 0.05, 0.1)
    total = sum(sizes.values())
    for split, share in ((VALIDATION, 0.05), (TEST, 0.1)):
        held = sum(size for name, size in sizes.items() if chosen[name] == split)
        assert 0.95 * share * total < held <= share * total


def test_a_share_of_nothing_holds_nothing_out() -> None:
    assert set(split_groups({"a": 1, "b": 1, "c": 1}, 0.0, 0.0).values()) == {TRAIN}
    assert set(split_by_position([1, 1, 1, 1], 0.0, 0.0)) == {TRAIN}


def test_by_position_the_end_is_held_out() -> None:
    assert split_by_position([10] * 10, 0.2, 0.1) == [TRAIN] * 7 + [VALIDATION] * 2 + [TEST]
    assert split_by_position([98, 1, 1], 0.001, 0.001) == [TRAIN, VALIDATION, TEST]
    assert split_by_position([98, 1], 0.001, 0.001) == [TRAIN, TRAIN]


@given(st.lists(st.integers(1, 100), min_size=3, max_size=30), SHARES, SHARES)
def test_positions_keep_their_order(sizes: list[int], validation: float, test: float) -> None:
    chosen = split_by_position(sizes, validation, test)
    assert chosen == sorted(chosen)
    assert set(chosen) == {TRAIN, VALIDATION, TEST}


@pytest.mark.parametrize(
    ("document", "group"),
    [
        (Document("1", "", "https://a.example/b", meta={"group": "mine"}), "mine"),
        (Document("1", "", "https://a.example/b"), "a.example"),
        (Document("1", "", "http://[broken"), "1"),
        (Document("1", ""), "1"),
    ],
)
def test_groups(document: Document, group: str) -> None:
    assert group_of(document) == group


def test_more_of_a_small_domain_is_held_out() -> None:
    config = CorpusConfig(validation=0.03, test=0.0, held_out_characters=1000)
    assert held_out_shares(10**6, config) == (0.03, 0.0)
    assert held_out_shares(20_000, config) == (0.05, 0.0)
    assert held_out_shares(1000, config) == (0.1, 0.0)
