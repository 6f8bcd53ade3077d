"""Batches: the same sequences however the work is split, exact resuming, the marks of documents."""

import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.artifacts import ConfigError, StageError
from maquette.data import MixtureOrder, TokenBatch, TokenShards, TrainingBatches, validation_batches
from maquette.data.batches import document_ids
from maquette.data.config import MixtureConfig, PhaseConfig

LONG = (PhaseConfig(start=0.4, context_multiple=2, rope_theta=40_000.0),)


def _order(shards: TokenShards, phases: tuple[PhaseConfig, ...] = LONG, *, seed: int = 0) -> MixtureOrder:
    config = MixtureConfig(weights={"books": 0.6, "code": 0.3, "web pages": 0.1}, phases=list(phases))
    return MixtureOrder(config, shards.tokens(), context=16, token_budget=16 * 96, seed=seed)


def _batches(
    shards: TokenShards, *, micro_batch_size: int = 8, batch: int = 24, steps: int = 4, **options
) -> TrainingBatches:
    return TrainingBatches(
        shards, _order(shards), batch_sequences=batch, micro_batch_size=micro_batch_size, steps=steps, **options
    )


def _rows(batches: list[TokenBatch], context: int = 16) -> list[tuple[int, ...]]:
    """Every sequence in pieces of one context, whatever the context it was read with."""
    rows = [row.tolist() for batch in batches for row in batch.tokens]
    return [tuple(row[start : start + context + 1]) for row in rows for start in range(0, len(row) - 1, context)]


def _same(one: TokenBatch, two: TokenBatch) -> bool:
    return (
        torch.equal(one.tokens, two.tokens)
        and torch.equal(one.domains, two.domains)
        and (one.first_sequence, one.phase) == (two.first_sequence, two.phase)
    )


def test_batches_hold_the_sequences_of_the_order(shards: TokenShards) -> None:
    places = _order(shards).locate(range(96))
    expected = [
        tuple(shards.read(shards.domains[domain], "train", start, 17).tolist())
        for domain, start in zip(places.domains.tolist(), places.start_tokens.tolist(), strict=True)
    ]
    result = list(_batches(shards))
    assert len(result) == len(_batches(shards)) == 12
    assert _rows(result) == expected
    assert [batch.first_sequence for batch in result] == list(range(0, 96, 8))


def test_a_phase_with_twice_the_context_has_half_the_rows(shards: TokenShards) -> None:
    order, result = _order(shards), list(_batches(shards))
    assert [phase.start for phase in order.phases] == [0, 32]
    # The second step (24 ... 47) stands astride the border and is read in short sequences, as the earlier phase.
    assert [tuple(batch.tokens.shape) for batch in result] == [(8, 17)] * 6 + [(4, 33)] * 6
    assert [batch.phase for batch in result] == [0] * 6 + [1] * 6
    assert order.phases[result[-1].phase].rope_theta == 40_000.0
    assert result[-1].domains.shape == (4,)


@given(
    batch=st.sampled_from([8, 16, 24, 48]),
    micro_batch_size=st.sampled_from([2, 4, 8]),
    world_size=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=30, deadline=None)
def test_the_text_does_not_depend_on_how_the_work_is_split(
    shards: TokenShards, batch: int, micro_batch_size: int, world_size: int
) -> None:
    steps = 96 // batch
    if batch % (micro_batch_size * world_size):
        with pytest.raises(ConfigError, match=f"{world_size} processes in micro-batches of {micro_batch_size}"):
            _batches(shards, batch=batch, micro_batch_size=micro_batch_size, steps=steps, rank=0, world_size=world_size)
        return
    ranks = [
        _batches(shards, batch=batch, micro_batch_size=micro_batch_size, steps=steps, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    parts = [_by_step(list(rank), rank.micro_batches_per_step) for rank in ranks]
    result = [batch for step in range(steps) for rank in range(world_size) for batch in parts[rank][step]]
    assert _rows(result) == _rows(list(_batches(shards, batch=8, steps=12)))
    sizes = {batch.inputs.numel() for batch in result}
    assert sizes == {micro_batch_size * 16}  # equal parts, so the mean over parts is the mean over all


def _by_step(batches: list[TokenBatch], per_step: int) -> list[list[TokenBatch]]:
    return [batches[start : start + per_step] for start in range(0, len(batches), per_step)]


@given(stop=st.integers(0, 12), micro_batch_size=st.sampled_from([2, 8]))
@settings(max_examples=20, deadline=None)
def test_resuming_goes_on_where_it_stopped(shards: TokenShards, stop: int, micro_batch_size: int) -> None:
    whole = list(_batches(shards, micro_batch_size=micro_batch_size))
    first = _batches(shards, micro_batch_size=micro_batch_size)
    taken = list(itertools.islice(first, stop))
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = _batches(shards, micro_batch_size=micro_batch_size)
    iterator = iter(second)  # Lightning may ask for the iterator before it loads the state
    second.load_state_dict(state)
    taken += list(iterator)
    assert len(taken) == len(whole)
    assert all(map(_same, taken, whole))
    assert list(second) == []


def test_reading_processes_change_nothing_and_what_they_read_ahead_is_not_counted(shards: TokenShards) -> None:
    whole = list(_batches(shards, document_masking=True))
    first = _batches(shards, workers=2, document_masking=True)
    before = torch.random.get_rng_state()
    taken = list(itertools.islice(first, 5))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.state_dict()["sequences"] == 24
    assert first.state_dict()["micro_batches"] == 2
    second = _batches(shards, workers=1, document_masking=True)
    second.load_state_dict(first.state_dict())
    taken += list(second)
    assert all(map(_same, taken, whole))
    assert all(torch.equal(a.segments, b.segments) for a, b in zip(taken, whole, strict=True))


def test_resuming_at_a_step_with_other_processes_and_micro_batches(shards: TokenShards) -> None:
    first = _batches(shards)
    taken = list(itertools.islice(first, 6))
    ranks = [_batches(shards, micro_batch_size=4, rank=rank, world_size=2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(first.state_dict())
    rest = [_by_step(list(rank), 3) for rank in ranks]
    result = [batch for one, two in zip(*rest, strict=True) for batch in (*one, *two)]
    assert _rows(taken) + _rows(result) == _rows(list(_batches(shards)))


def test_a_state_may_stand_at_any_step(shards: TokenShards) -> None:
    batches = _batches(shards)
    batches.load_state_dict({**batches.state_dict(), "sequences": 3 * batches.batch_sequences})
    assert _rows(list(batches)) == _rows(list(_batches(shards))[9:])


def test_another_order_or_batch_is_refused(shards: TokenShards) -> None:
    batches = _batches(shards)
    list(itertools.islice(batches, 4))
    state = batches.state_dict()
    other = TrainingBatches(shards, _order(shards, seed=1), batch_sequences=24, micro_batch_size=8, steps=4)
    with pytest.raises(StageError, match="other tokens, or in another order"):
        other.load_state_dict(state)
    with pytest.raises(StageError, match="where no batch of 24"):
        _batches(shards, micro_batch_size=4).load_state_dict(state)
    with pytest.raises(StageError, match="at sequence 24, where no batch of 16"):
        _batches(shards, batch=16).load_state_dict({**state, "micro_batches": 0})


def test_a_longer_context_needs_micro_batches_that_it_divides(shards: TokenShards) -> None:
    with pytest.raises(ConfigError, match=r"2 times the context; micro-batches of 3"):
        _batches(shards, micro_batch_size=3)


def test_segments_number_the_documents_of_a_sequence(shards: TokenShards) -> None:
    assert all(batch.segments is None for batch in _batches(shards))
    for batch in _batches(shards, document_masking=True):
        for row, segments in zip(batch.tokens.tolist(), batch.segments.tolist(), strict=True):
            number, expected = 0, []
            for token in row[:-1]:
                number += token == 0
                expected.append(number)
            assert segments == expected


def test_documents_of_a_batch_are_named(shards: TokenShards) -> None:
    batches = _batches(shards)
    for batch in batches:
        expected: dict[str, None] = {}
        for row, domain in zip(batch.tokens.tolist(), batch.domains.tolist(), strict=True):
            name = shards.domains[domain]
            table, stream = shards.documents(name), shards.stream(name)
            everything = stream.read(0, len(stream))
            start = int(np.flatnonzero(everything == next(token for token in row if token))[0])
            start -= next(place for place, token in enumerate(row) if token)
            first = np.searchsorted(table.starts, start, side="right") - 1
            last = np.searchsorted(table.starts, start + len(row) - 1, side="right") - 1
            expected |= dict.fromkeys(table.ids[first : last + 1])
        length = batch.inputs.shape[1]
        numbers = batch.first_sequence + np.arange(len(batch.tokens)) * (length // batches.order.context)
        assert document_ids(shards, batches.order, numbers, length) == list(expected)


def test_a_batch_goes_to_a_device(shards: TokenShards) -> None:
    batch = next(iter(_batches(shards, document_masking=True))).to("meta")
    assert {batch.tokens.device.type, batch.domains.device.type, batch.segments.device.type} == {"meta"}
    assert batch.inputs.shape == batch.targets.shape == batch.segments.shape


def test_validation_is_the_same_each_time_and_reads_nothing_twice(shards: TokenShards) -> None:
    result = validation_batches(shards, "books", 16, 400, 4)
    again = validation_batches(shards, "books", 16, 400, 4)
    assert all(map(_same, result, again))
    assert [len(batch.tokens) for batch in result] == [4] * 6 + [1]
    assert {int(domain) for batch in result for domain in batch.domains} == {shards.domains.index("books")}
    stream = shards.stream("books", "validation")
    everything = stream.read(0, len(stream)).tolist()
    places = []
    for row in _rows(result):
        places.append(
            next(start for start in range(0, len(everything), 16) if everything[start : start + 17] == list(row))
        )
    assert len(set(places)) == 25
    assert max(places) > 0.9 * len(everything) - 16  # spread over the whole split


def test_validation_of_a_short_split_is_shorter(shards: TokenShards) -> None:
    available = shards.tokens("validation")["code"]
    (batch,) = validation_batches(shards, "code", 10_000, 100_000, 4, document_masking=True)
    assert batch.tokens.shape == (1, available)
    assert batch.segments.shape == (1, available - 1)
    assert validation_batches(shards, "code", 16, 1000, 4, split="test") == []
