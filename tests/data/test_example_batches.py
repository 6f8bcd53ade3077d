"""Batches of examples: the order, packing, micro-batches and going on, on examples of random lengths."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maquette.artifacts import StageError
from maquette.data.example_batches import (
    ExampleBatches,
    best_fit,
    conversation_batches,
    preference_batches,
)
from maquette.data.examples import Examples
from maquette.data.order import Reshuffled


def some_examples(lengths: list[int], prompt: int = 2) -> Examples:
    """Token k of example i is 100 i + k; what comes after the prompt counts."""
    starts = np.cumsum([0, *lengths])
    tokens = np.concatenate([100 * i + np.arange(length) for i, length in enumerate(lengths)]).astype(np.int32)
    mask = np.concatenate([np.arange(length) >= prompt for length in lengths])
    count = len(lengths)
    columns = {"margin": np.arange(count) / 2, "probability": np.full(count, np.nan)}
    return Examples(tokens, mask, starts, columns)


LENGTHS = [5, 9, 4, 3, 9, 6, 4, 3]
EXAMPLES = some_examples(LENGTHS)


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(20, 40))
def test_best_fit(lengths: list[int], capacity: int) -> None:
    rows = best_fit(lengths, capacity)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    space = [capacity - sum(lengths[place] for place in row) for row in rows]
    assert all(left >= 0 for left in space)
    # Two rows that would fit into one are never both left: the later one would have gone into the other.
    assert all(space[one] < sum(lengths[p] for p in rows[other]) for other in range(len(rows)) for one in range(other))


def test_an_example_longer_than_a_row() -> None:
    with pytest.raises(ValueError, match="21 tokens does not fit a row of 20"):
        best_fit([3, 21], 20)


@given(st.integers(1, 50), st.integers(0, 5))
def test_every_round_sees_every_example_once(count: int, seed: int) -> None:
    order = Reshuffled(count, "examples", seed)
    rounds = order.locate(np.arange(3 * count)).reshape(3, count)
    assert (np.sort(rounds, axis=1) == np.arange(count)).all()
    assert order.locate(np.array([count])).tolist() == [rounds[1, 0]]
    if count > 20:
        assert not np.array_equal(rounds[0], rounds[1])


def test_packed_rows() -> None:
    (batch,) = conversation_batches(EXAMPLES, range(8), 1)
    assert batch.tokens.shape[1] == 9 and len(batch.tokens) < 8
    assert batch.segments is not None and batch.positions is not None
    result = {}
    for row in range(len(batch.tokens)):
        for segment in range(int(batch.segments[row].max()) + 1):
            place = batch.segments[row] == segment
            ids = batch.tokens[row][place]
            result[int(ids[0]) // 100] = ids.tolist()
            assert batch.positions[row][place].tolist() == list(range(len(ids)))
            assert batch.loss_mask[row][place].tolist() == [k >= 2 for k in range(len(ids))]
    assert result == {i: EXAMPLES[i][0].tolist() for i in range(8)}
    assert not batch.loss_mask[batch.segments == -1].any()


def test_rows_of_one_example_need_no_segments() -> None:
    (batch,) = conversation_batches(EXAMPLES, [1, 4], 1)
    assert batch.segments is None and batch.positions is None and batch.lengths.tolist() == [9, 9]


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_divisors_make_the_mean_over_tokens(parts: int) -> None:
    batches = conversation_batches(EXAMPLES, range(8), parts)
    means = [batch.mask.sum().item() / batch.divisor for batch in batches]
    assert sum(means) / parts == pytest.approx(1)


def test_pairs() -> None:
    (batch,) = preference_batches(EXAMPLES, [2, 0], 1, torch.arange(8.0))
    assert [int(row[0]) // 100 for row in batch.rows().tokens] == [4, 0, 5, 1]
    assert batch.margin.tolist() == [2.0, 0.0] and batch.probability.isnan().all()
    assert batch.reference_chosen is not None and batch.reference_chosen.tolist() == [4.0, 0.0]
    assert batch.reference_rejected is not None and batch.reference_rejected.tolist() == [5.0, 1.0]
    assert batch.chosen.lengths.tolist() == [9, 5] and batch.rejected.lengths.tolist() == [6, 9]
    assert torch.equal(batch.chosen.tokens, batch.rows().tokens[:2])


def batches(rank: int = 0, world: int = 1, micro: int = 2, identity: str = "a") -> ExampleBatches[list[int]]:
    return ExampleBatches(
        Reshuffled(8, "examples", 1),
        lambda indices, parts, mine: [part.tolist() for part in np.array_split(indices, parts)[mine]],
        batch_size=4, micro_batches=micro, steps=5, identity=identity, rank=rank, world_size=world,
    )  # fmt: skip


def test_batches_for_a_gpu_are_pinned_one_by_one() -> None:
    class Pinned(str):
        def pin_memory(self) -> str:
            return f"pinned {self}"

    made = ExampleBatches(
        Reshuffled(4, "examples", 1), lambda indices, parts, mine: [Pinned(part) for part in range(parts)][mine],
        batch_size=2, micro_batches=2, steps=1, identity="a", pin_memory=True,
    )  # fmt: skip
    assert list(made) == ["pinned 0", "pinned 1"]


def test_processes_and_micro_batches_share_a_step() -> None:
    whole = list(batches(micro=1))
    assert len(whole) == len(batches(micro=1)) == 5
    split = list(batches(micro=2))
    assert [one + other for one, other in zip(split[::2], split[1::2], strict=True)] == whole
    one, two = (list(batches(rank, world=2, micro=2)) for rank in (0, 1))
    joined = [[*one[2 * step], *one[2 * step + 1], *two[2 * step], *two[2 * step + 1]] for step in range(5)]
    assert joined == whole


@pytest.mark.parametrize("place", [0, 1, 4, 7, 10])
def test_going_on(place: int) -> None:
    whole, parted = list(batches()), batches()
    iterator = iter(parted)
    seen = [next(iterator) for _ in range(place)]
    again = batches()
    again.load_state_dict(parted.state_dict())
    assert seen + list(again) == whole
    with pytest.raises(StageError, match="other examples"):
        batches(identity="b").load_state_dict(parted.state_dict())
