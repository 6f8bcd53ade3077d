"""What bends the distribution: exact small cases, parity with `transformers`, and draws that follow the numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.artifacts import ConfigError
from maquette.model.sampling import (
    Sampling,
    bend,
    distribution,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalize_repetition,
    uniform_numbers,
)

INF = math.inf
FOUR = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()


def candidates(logits: torch.Tensor) -> list[int]:
    return logits[0].isfinite().nonzero()[:, 0].tolist()


def test_top_k_keeps_the_likeliest_and_ties() -> None:
    assert candidates(keep_top_k(FOUR, 2)) == [0, 1]
    assert candidates(keep_top_k(torch.tensor([[1.0, 2.0, 2.0, 3.0]]), 2)) == [1, 2, 3]
    assert torch.equal(keep_top_k(FOUR, 9), FOUR)


@pytest.mark.parametrize(
    ("p", "expected"), [(0.0, [0]), (0.4, [0]), (0.6, [0, 1]), (0.8, [0, 1, 2]), (0.95, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, expected: list[int]) -> None:
    assert candidates(keep_top_p(FOUR, p)) == expected
    assert candidates(keep_top_p(FOUR.flip(1), p)) == [3 - index for index in reversed(expected)]


def test_min_p_is_a_share_of_the_likeliest() -> None:
    assert candidates(keep_min_p(FOUR, 0.29)) == [0, 1, 2]
    assert candidates(keep_min_p(FOUR, 0.31)) == [0, 1]
    assert candidates(keep_min_p(FOUR, 1.0)) == [0]


def test_repetition_penalty() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert penalize_repetition(logits, seen, 4.0).tolist() == [[0.5, -8.0, 2.0, -2.0]]


def test_temperature_and_order() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    assert bend(logits, Sampling(temperature=0.5)).tolist() == [[4.0, 2.0, 0.0]]
    assert bend(logits, Sampling(temperature=0.0, top_k=1)) is logits, "greedy needs no bending"
    # The penalty comes first: the token that was likeliest falls out of the top two.
    seen = torch.tensor([[True, False, False]])
    bent = bend(logits, Sampling(temperature=1.0, top_k=2, repetition_penalty=4.0), seen)
    assert bent.tolist() == [[0.5, 1.0, -INF]]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=1.0, top_k=5),
        Sampling(temperature=1.3, top_p=0.8),
        Sampling(temperature=1.0, min_p=0.1),
        Sampling(temperature=1.0, repetition_penalty=1.5),
        Sampling(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05, repetition_penalty=1.2),
    ],
    ids=str,
)
def test_distributions_of_transformers(sampling: Sampling) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(16, 50, generator=generator)
    tokens = torch.randint(50, (16, 12), generator=generator)
    chain = process.LogitsProcessorList([process.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    chain.append(process.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k is not None:
        chain.append(process.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        chain.append(process.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        chain.append(process.MinPLogitsWarper(sampling.min_p))
    seen = torch.zeros(16, 50, dtype=torch.bool).scatter(1, tokens, True)
    expected = chain(tokens, logits.clone()).softmax(-1)
    torch.testing.assert_close(bend(logits, sampling, seen).softmax(-1), expected, atol=1e-6, rtol=0)


def test_draw_inverts_the_distribution() -> None:
    logits = FOUR.repeat(6, 1)
    logits[:, 0] = -INF  # left are 1/2, 3/10, 1/5
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.81, 1.0])
    assert draw(logits, uniform).tolist() == [1, 1, 2, 2, 3, 3]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.sampled_from([0.0, 1.0 - 2**-53]))
def test_draw_never_takes_what_was_left_out(seed: int, vocabulary: int, edge: float) -> None:
    logits = 10 * torch.randn(8, vocabulary, generator=torch.Generator().manual_seed(seed))
    logits = keep_top_k(logits, max(1, vocabulary // 3))
    uniform = uniform_numbers(seed, 8)
    uniform[0] = edge
    assert logits.gather(1, draw(logits, uniform)[:, None]).isfinite().all()


def test_frequencies() -> None:
    draws = draw(FOUR.expand(40_000, -1), uniform_numbers(3, 40_000)).bincount(minlength=4) / 40_000
    torch.testing.assert_close(draws, FOUR.exp()[0], atol=0.01, rtol=0)


def test_more_numbers_begin_with_the_same() -> None:
    assert torch.equal(uniform_numbers(5, 1000)[:10], uniform_numbers(5, 10))
    assert not torch.equal(uniform_numbers(6, 10), uniform_numbers(5, 10))


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 1.5}, {"min_p": -0.1}, {"repetition_penalty": 0.0}]
)
def test_wrong_values(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0, top_p=0.5),
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_k=5),
        Sampling(temperature=1.3, top_p=0.8, min_p=0.05),
        Sampling(temperature=0.9, top_k=6, top_p=0.9, repetition_penalty=1.5),
    ],
)
def test_the_distribution_is_what_is_drawn(sampling: Sampling) -> None:
    """Of every number that a row may draw with, each token gets as many as its probability says."""
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(3)) * 2
    seen = torch.arange(12)[None] % 3 == 0
    probabilities = distribution(logits, sampling, seen)[0]
    bent = bend(logits, sampling, seen)
    count = 20_000
    numbers = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    drawn = bent.argmax(-1).expand(count) if sampling.greedy else draw(bent.expand(count, -1), numbers)
    shares = torch.bincount(drawn, minlength=12) / count
    assert torch.allclose(shares.double(), probabilities, atol=1.01 / count, rtol=0)
    assert torch.equal(shares > 0, probabilities > 0)
