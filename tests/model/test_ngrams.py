"""Kneser-Ney: probabilities are probabilities, a case by hand, and it learns what there is to learn."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.model.ngrams import KneserNey, estimate_discounts


def distribution(model: KneserNey, context: Sequence[int]) -> np.ndarray:
    """Probability of every token after `context`, which has one token or more."""
    texts = [[*context, token] for token in range(model.vocab_size)]
    return np.exp(model.log_probabilities(np.array(texts))).reshape(model.vocab_size, -1)[:, -1]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.integers(2, 30),
    order=st.integers(1, 5),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 15)),
    context=st.lists(st.integers(0, 1), max_size=7),
)
def test_probabilities_sum_to_one_after_any_context(
    seed: int, vocabulary: int, order: int, shape: tuple[int, int], context: list[int]
) -> None:
    tokens = np.random.default_rng(seed).integers(0, vocabulary, shape)
    model = KneserNey.fit(tokens, vocabulary, order=order)
    for seen in ([0, *context], tokens[0].tolist()):
        result = distribution(model, seen)
        assert result.min() >= 0
        assert result.sum() == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.integers(1, 5))
def test_scores_are_the_distributions_at_the_next_tokens(seed: int, order: int) -> None:
    generator = np.random.default_rng(seed)
    model = KneserNey.fit(generator.integers(0, 6, (8, 9)), 6, order=order)
    texts = generator.integers(0, 6, (3, 7))
    expected = [math.log(distribution(model, text[:i])[text[i]]) for text in texts.tolist() for i in range(1, 7)]
    np.testing.assert_allclose(model.log_probabilities(texts), expected, rtol=1e-12)


def test_a_bigram_model_by_hand() -> None:
    """Tokens 0 1 0 1 0 2, of which the first is context only: bigrams 01 (twice), 10 (twice), 02 (once).

    Bigram counts 2, 2, 1: n1 = 1, n2 = 2, n3 = n4 = 0, so share = 1 / 5, D1 = 1 - 2 * (1/5) * 2 = 0.2 and
    D2 = 2 - 3 * (1/5) * 0 / 2 = 2: the two bigrams seen twice keep nothing.
    Unigrams: different tokens before 0: {1}, before 1: {0}, before 2: {0}: three of 1, so n1 = 3, n2 = 0 and D1 = 0.75.
    """
    model = KneserNey.fit(np.array([[0, 1, 0, 1, 0, 2]]), 4, order=2)
    unigram = np.array([0.25 / 3, 0.25 / 3, 0.25 / 3, 0.0]) + (3 * 0.75 / 3) / 4
    after_0 = np.array([0.0, (2 - 2) / 3, (1 - 0.2) / 3, 0.0]) + (2 + 0.2) / 3 * unigram
    np.testing.assert_allclose(distribution(model, [0]), after_0)
    after_1 = np.array([(2 - 2) / 2, 0.0, 0.0, 0.0]) + 2 / 2 * unigram
    np.testing.assert_allclose(distribution(model, [1]), after_1)
    np.testing.assert_allclose(distribution(model, [3]), unigram)


def test_a_trigram_model_against_a_plain_recursion() -> None:
    """The same formula written with dictionaries, over sequences of different lengths."""
    generator = np.random.default_rng(1)
    sequences = [generator.integers(0, 5, (1, n)) for n in (40, 7, 2, 90)]
    lists = [block[0].tolist() for block in sequences]
    counts: list[dict[tuple[int, ...], int]] = [{} for _ in range(4)]
    for text in lists:
        for n in (1, 2, 3):
            for end in range(max(1, n - 1), len(text)):
                gram = tuple(text[end - n + 1 : end + 1])
                counts[n][gram] = counts[n].get(gram, 0) + 1
    adjusted = {3: counts[3]}
    for n in (1, 2):
        adjusted[n] = {gram: max(1, sum(longer[1:] == gram for longer in counts[n + 1])) for gram in counts[n]}

    def probability(token: int, context: tuple[int, ...]) -> float:
        table = adjusted[len(context) + 1]
        discounts = [0.0, *estimate_discounts(np.array(list(table.values())))]
        followers = {gram[-1]: count for gram, count in table.items() if gram[:-1] == context}
        shorter = probability(token, context[1:]) if context else 1 / 5
        if not followers:
            return shorter
        total = sum(followers.values())
        left_over = sum(discounts[min(count, 3)] for count in followers.values()) / total
        count = followers.get(token, 0)
        return (count - discounts[min(count, 3)]) / total + left_over * shorter

    model = KneserNey.fit(sequences, 5, order=3)
    for context in ((0,), (1, 2), (3, 3), (4, 0)):
        np.testing.assert_allclose(distribution(model, context), [probability(token, context) for token in range(5)])


def test_discounts_as_in_the_paper() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [100, 40, 20, 12, 5])
    share = 100 / 180
    expected = [1 - 2 * share * 40 / 100, 2 - 3 * share * 20 / 40, 3 - 4 * share * 12 / 20]
    np.testing.assert_allclose(estimate_discounts(counts), expected)
    np.testing.assert_array_equal(estimate_discounts(np.array([7, 7])), [0.75, 0.75, 0.75])


def test_it_learns_a_language_of_four_token_contexts() -> None:
    """Four times in five the next token is a function of the last four, so its entropy after four is that of
    probabilities 0.85 and three of 0.05; the first four of each 50 tokens are seen after less."""
    generator = np.random.default_rng(0)
    rule = generator.integers(0, 4, (4, 4))
    text = list(generator.integers(0, 4, 4))
    for _ in range(20_000):
        text.append(int(rule[text[-4], text[-1]]) if generator.random() < 0.8 else int(generator.integers(0, 4)))
    tokens = np.array(text[:20_000]).reshape(-1, 50)
    five, one = KneserNey.fit(tokens[:300], 4, order=5), KneserNey.fit(tokens[:300], 4, order=1)
    entropy = -0.85 * math.log(0.85) - 3 * 0.05 * math.log(0.05)
    assert entropy < -five.log_probabilities(tokens[300:])[3::49].mean() + 0.1
    assert -five.log_probabilities(tokens[300:]).mean() < 0.92 * entropy + 0.08 * math.log(4) + 0.06
    assert -one.log_probabilities(tokens[300:]).mean() > 1.2


def test_foreign_tokens_and_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not in \[0, 3\)"):
        KneserNey.fit(np.array([[0, 3]]), 3)
    with pytest.raises(ValueError, match="no tokens"):
        KneserNey.fit(np.zeros((0, 4), int), 3)
