"""Bradley-Terry ratings: hand-computed, against scikit-learn, on known strengths, and what is refused."""

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from maquette.artifacts import ConfigError
from maquette.evaluation import bradley_terry_ratings, topic_shares, topic_weights
from maquette.evaluation.ratings import Ratings

Battles = tuple[np.ndarray, np.ndarray, np.ndarray]


def tournament(strengths: np.ndarray, battles: int, generator: np.random.Generator, tied: float = 0.0) -> Battles:
    """Winners, losers and ties, with names."""
    names = np.array([f"model {i}" for i in range(len(strengths))])
    first = generator.integers(0, len(strengths), battles)
    second = (first + generator.integers(1, len(strengths), battles)) % len(strengths)
    won = generator.random(battles) < expit(strengths[first] - strengths[second])
    ties = generator.random(battles) < tied
    return names[np.where(won, first, second)], names[np.where(won, second, first)], ties


def test_two_contenders_by_hand() -> None:
    """7 wins, 2 losses and a tie are 7.5 to 2.5."""
    ratings = bradley_terry_ratings(["a"] * 7 + ["b"] * 2 + ["a"], ["b"] * 7 + ["a"] * 2 + ["b"], ties=[0] * 9 + [1])
    assert ratings.strengths["a"] - ratings.strengths["b"] == pytest.approx(logit(0.75))
    assert sum(ratings.strengths.values()) == pytest.approx(0, abs=1e-12)
    assert ratings.elo("a") - ratings.elo("b") == pytest.approx(400 * np.log10(3))
    assert ratings.battles == {"a": 10, "b": 10}


def test_agrees_with_logistic_regression() -> None:
    """The same model as logistic regression without a penalty, with ties as halves, weights and a covariate."""
    generator = np.random.default_rng(0)
    size, count = 6, 900
    first = generator.integers(0, size, count)
    second = (first + generator.integers(1, size, count)) % size
    longer = generator.normal(size=count)
    strengths = np.linspace(-1, 1, size)
    won = generator.random(count) < expit(strengths[first] - strengths[second] + 0.5 * longer)
    ties, weights = generator.random(count) < 0.2, generator.uniform(0.2, 2, count)
    winners, losers = np.where(won, first, second), np.where(won, second, first)
    signed = np.where(won, longer, -longer)
    ratings = bradley_terry_ratings(winners, losers, ties=ties, weights=weights, covariates={"length": signed})

    design = np.zeros((count, size + 1))
    design[np.arange(count), winners], design[np.arange(count), losers], design[:, size] = 1, -1, signed
    rows = np.concatenate([design, design])
    label = np.repeat([1, 0], count)
    weight = np.concatenate([weights * np.where(ties, 0.5, 1.0), weights * np.where(ties, 0.5, 0.0)])
    peer = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
    expected = peer.fit(rows, label, sample_weight=weight).coef_[0]
    expected[:size] -= expected[:size].mean()
    assert [ratings.strengths[i] for i in range(size)] == pytest.approx(expected[:size], abs=1e-4)
    assert ratings.coefficients["length"] == pytest.approx(expected[size], abs=1e-4)
    assert ratings.coefficient_intervals["length"].contains(0.8 * 0.5)  # a fifth are ties


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"bootstrap": 100}, marks=pytest.mark.slow(reason="a bootstrap in each of 200 tournaments"))],
)
def test_coverage_over_simulated_tournaments(options: dict[str, Any]) -> None:
    """Intervals of 90% hold the true strength in about 90% of 200 tournaments; so do the ranks'."""
    truth = np.array([-0.8, -0.3, 0.0, 0.3, 0.8])
    held, ranks_held = [], []
    for number in range(200):
        winners, losers, _ = tournament(truth, 250, np.random.default_rng(number))
        ratings = bradley_terry_ratings(winners, losers, **options)
        for i, strength in enumerate(truth):
            name = f"model {i}"
            held.append(ratings.intervals[name].contains(strength))
            rank = ratings.rank_intervals[name]
            ranks_held.append(rank.low <= len(truth) - i <= rank.high)
    assert np.mean(held) == pytest.approx(0.9, abs=0.035)  # 1,000 values of five that depend on each other
    assert np.mean(ranks_held) >= 0.88


def test_recovers_known_strengths_of_many() -> None:
    truth = np.random.default_rng(1).normal(size=40)
    truth -= truth.mean()
    ratings = bradley_terry_ratings(*tournament(truth, 200_000, np.random.default_rng(2))[:2])
    result = np.array([ratings.strengths[f"model {i}"] for i in range(40)])
    assert np.abs(result - truth).max() < 0.08
    assert list(ratings.strengths) == sorted(ratings.strengths, key=lambda name: -ratings.strengths[name])


def test_order_of_rows_and_names_does_not_matter() -> None:
    winners, losers, ties = tournament(np.linspace(-1, 1, 5), 300, np.random.default_rng(3), tied=0.3)
    order = np.random.default_rng(4).permutation(300)
    expected = bradley_terry_ratings(winners, losers, ties=ties)
    shuffled = bradley_terry_ratings(winners[order], losers[order], ties=ties[order])
    renamed = bradley_terry_ratings([f"z{w}"[::-1] for w in winners], [f"z{w}"[::-1] for w in losers], ties=ties)
    swapped = bradley_terry_ratings(
        np.where(ties, losers, winners), np.where(ties, winners, losers), ties=ties
    )  # who is named first in a tie means nothing
    for other in (shuffled, swapped):
        assert other.strengths == pytest.approx(expected.strengths)
    assert {f"z{name}"[::-1]: value for name, value in expected.strengths.items()} == pytest.approx(renamed.strengths)
    reversed_roles = bradley_terry_ratings(losers, winners, ties=ties)
    assert {name: -value for name, value in reversed_roles.strengths.items()} == pytest.approx(expected.strengths)


def test_a_weight_is_a_count() -> None:
    winners, losers = ["a", "b", "b", "c", "a"], ["b", "a", "c", "a", "c"]
    doubled = bradley_terry_ratings(winners + winners[:2], losers + losers[:2])
    weighed = bradley_terry_ratings(winners, losers, weights=[2, 2, 1, 1, 1])
    assert weighed.strengths == pytest.approx(doubled.strengths)


def test_seeds() -> None:
    winners, losers, _ = tournament(np.linspace(-1, 1, 4), 100, np.random.default_rng(5))
    first, again, other = (bradley_terry_ratings(winners, losers, bootstrap=100, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.intervals != other.intervals


def test_groups_that_never_met_are_named() -> None:
    with pytest.raises(ConfigError, match=r"2 groups never met.*\[ant, bee\]; \[cat, dog\]"):
        bradley_terry_ratings(["ant", "bee", "cat"], ["bee", "ant", "dog"])
    with pytest.raises(ConfigError, match="never met"):  # a battle that weighs nothing is none
        bradley_terry_ratings(["ant", "bee", "cat", "cat"], ["bee", "ant", "dog", "ant"], weights=[1, 1, 1, 0])


def test_who_wins_always_has_a_finite_strength_and_a_warning() -> None:
    ratings = bradley_terry_ratings(["a", "a", "b", "c", "a"], ["b", "c", "c", "b", "b"], bootstrap=100)
    assert "[a] won or lost every battle" in ratings.warnings[0]
    assert ratings.rank_intervals["a"].rank == 1
    assert 1 < ratings.strengths["a"] < 20


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match="battle 1 b meets itself"):
        bradley_terry_ratings(["a", "b"], ["b", "b"])
    with pytest.raises(ConfigError, match="losers has shape"):
        bradley_terry_ratings(["a", "b"], ["b"])
    with pytest.raises(ConfigError, match="no battles"):
        bradley_terry_ratings([], [])
    with pytest.raises(ConfigError, match="covariates"):
        bradley_terry_ratings(["a", "b"], ["b", "a"], covariates=[1.0, np.nan])


def test_topics_can_be_weighed_anew() -> None:
    """On code a wins 3 of 4, on chat 1 of 4; asked mostly about code, a leads."""
    winners = ["a", "a", "a", "b"] + ["b", "b", "b", "a"] * 3
    losers = ["b", "b", "b", "a"] + ["a", "a", "a", "b"] * 3
    topics = ["code"] * 4 + ["chat"] * 12
    assert topic_shares(topics) == {"chat": 0.75, "code": 0.25}

    def lead(ratings: Ratings) -> float:
        return float(expit(ratings.strengths["a"] - ratings.strengths["b"]))

    assert lead(bradley_terry_ratings(winners, losers)) == pytest.approx(6 / 16)
    assert lead(bradley_terry_ratings(winners, losers, weights=topic_weights(topics))) == pytest.approx(0.5)
    weights = topic_weights(topics, {"code": 3, "chat": 1})
    assert weights.mean() == pytest.approx(1)
    assert lead(bradley_terry_ratings(winners, losers, weights=weights)) == pytest.approx(0.75 * 0.75 + 0.25 * 0.25)
    with pytest.raises(ConfigError, match="'chat' has no share"):
        topic_weights(topics, {"code": 1})
