"""The exchangeability test: by hand, uniform without a leak, sharp with one."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp

from maquette.artifacts import ConfigError
from maquette.evaluation import contamination_test


def remembers(strength: float) -> "Remembering":
    return Remembering(strength)


class Remembering:
    """Finds an example likelier by `strength` where the one before it is its predecessor; counts what it was asked."""

    def __init__(self, strength: float) -> None:
        self.strength, self.asked = strength, 0

    def __call__(self, sequence: Sequence[int]) -> float:
        self.asked += 1
        return self.strength * sum(b == a + 1 for a, b in itertools.pairwise(sequence))


def test_by_hand() -> None:
    """Shards of two examples: the only other order loses the one pair that follows."""
    weights = {0: 1.0, 2: 3.0, 4: 5.0}

    def score(sequence: Sequence[int]) -> float:
        return weights[sequence[0]] if sequence[1] == sequence[0] + 1 else 0.0

    result = contamination_test(score, range(6), permutations=1, shards=3, seed=0)
    assert result.differences == (1.0, 3.0, 5.0)
    assert result.statistic == pytest.approx(3 / (2 / np.sqrt(3)))
    expected = ttest_1samp([1.0, 3.0, 5.0], 0, alternative="greater")
    assert (result.statistic, result.p_value) == pytest.approx((expected.statistic, expected.pvalue))


def test_a_leak_is_found_and_each_ordering_is_scored_once() -> None:
    model = remembers(0.5)
    noise = np.random.default_rng(0).normal(size=(100, 100))

    def score(sequence: Sequence[int]) -> float:
        return model(sequence) + sum(noise[a, b] for a, b in itertools.pairwise(sequence))

    result = contamination_test(score, range(100), permutations=20, shards=10, seed=0)
    assert result.p_value < 0.01
    assert model.asked == 10 * 21
    assert len(result.differences) == 10


def test_uniform_without_a_leak() -> None:
    """The order matters to the model, but not the published one."""
    p_values = []
    for seed in range(120):
        weights = np.random.default_rng(seed).gumbel(size=(40, 40))
        p_values.append(
            contamination_test(
                lambda s, weights=weights: float(weights[s[:-1], s[1:]].sum()),
                range(40),
                permutations=8,
                shards=8,
                seed=seed,
            ).p_value
        )
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_seed_and_batches() -> None:
    class Batched(Remembering):
        def many(self, orderings: Sequence[Sequence[int]]) -> list[float]:
            return [float(np.sin(np.dot(order, np.arange(len(order))))) for order in orderings]

    first, again = (contamination_test(Batched(1), range(30), permutations=5, shards=5, seed=3) for _ in range(2))
    assert first == again
    one_by_one = contamination_test(
        lambda order: float(np.sin(np.dot(order, np.arange(len(order))))), range(30), permutations=5, shards=5, seed=3
    )
    assert one_by_one == first


def test_an_order_that_changes_nothing() -> None:
    result = contamination_test(lambda s: float(sum(s)), range(20), permutations=3, shards=4, seed=0)
    assert (result.p_value, result.statistic) == (1.0, 0.0)


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="19 examples make no 10 shards"):
        contamination_test(lambda s: 0.0, range(19), permutations=3, shards=10, seed=0)
    with pytest.raises(ConfigError, match="not finite"):
        contamination_test(lambda s: float("-inf"), range(20), permutations=3, shards=10, seed=0)
    with pytest.raises(ConfigError, match="at least 1 and 2"):
        contamination_test(lambda s: 0.0, range(20), permutations=0, shards=10, seed=0)
