"""How good labels are: right by gold, agreed on by others, swayed by length and place; bias against variance.

Votes are numbers: 1 the first completion, 0 the second, 0.5 undecided, NaN no vote. Pure functions.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from maquette.artifacts import ConfigError
from maquette.statistics import Estimate, bootstrap_mean

Votes = NDArray[np.float64]


def accuracy_to_gold(votes: ArrayLike, gold: ArrayLike) -> Estimate | None:
    """Share of decided votes for the completion with the higher gold reward, with its 95% interval.

    `votes (n,)`, `gold (n,)`: gold reward of the first less that of the second; pairs of equal gold say nothing. None
    where fewer than two pairs do.
    """
    votes, gold = np.asarray(votes, float), np.asarray(gold, float)
    tells = (gold != 0) & ~np.isnan(votes) & (votes != 0.5)
    if tells.sum() < 2:
        return None
    return bootstrap_mean((votes[tells] > 0.5) == (gold[tells] > 0), level=0.95)


def inter_annotator_agreement(votes: ArrayLike) -> Estimate | None:
    """How often two annotators vote alike on the same pair: `votes (annotators, n)`, over all pairs of annotators.

    It is not accuracy: two who are each right with chance p agree with chance p^2 + (1 - p)^2. None where no pair was
    judged by two.
    """
    votes = np.atleast_2d(np.asarray(votes, float))
    alike: list[NDArray[np.float64]] = []
    for one, other in itertools.combinations(votes, 2):
        both = np.where(np.isnan(one) | np.isnan(other), np.nan, (one > 0.5) == (other > 0.5))
        alike.append(both)
    if not alike:
        return None
    table = np.stack(alike)  # (pairs of annotators, n)
    judged = ~np.isnan(table).all(axis=0)
    if judged.sum() < 2:
        return None
    return bootstrap_mean(np.nanmean(table[:, judged], axis=0), level=0.95)


@dataclass(frozen=True)
class BiasEstimates:
    """What sways an annotator, as odds: a vote for the first completion is so many times likelier for each unit of gold
    reward, each word more, a list, and being shown first. From a logistic regression of votes on all of them at once,
    so that length is not credited with what gold explains."""

    gold: float
    word: float
    list: float
    first: float


def estimate_biases(votes: ArrayLike, gold: ArrayLike, words: ArrayLike, lists: ArrayLike) -> BiasEstimates | None:
    """The odds from votes and differences (first less second) of gold reward, words and being a list, all (n,).

    A small ridge (1e-5) keeps the odds finite where a feature decides everything. None with fewer than ten votes.
    """
    votes = np.asarray(votes, float)
    known = ~np.isnan(votes) & (votes != 0.5)
    if known.sum() < 10:
        return None
    columns = [np.asarray(values, float)[known] for values in (gold, words, lists)]
    features = np.stack([*columns, np.ones(int(known.sum()))], axis=1)
    weights = _logistic_regression(features, (votes[known] > 0.5).astype(float))
    return BiasEstimates(*(float(np.exp(np.clip(weight, -30, 30))) for weight in weights))


@dataclass(frozen=True)
class LabelCurve:
    """`error[m - 1]`: how often the majority of m labels of a pair is wrong by gold. `bias`: of all labels' majority,
    which more labels do not cure; `variance`: how often one label differs from that majority."""

    error: NDArray[np.float64]
    bias: float
    variance: float


def label_curve(votes: ArrayLike, gold: ArrayLike) -> LabelCurve:
    """Bias and variance of labels (Dubois et al. 2023, AlpacaFarm, figure 4 and appendix), and the error of majorities.

    `votes (labels, n)`: several labels of each pair, by people of one kind; `gold (n,)` as in `accuracy_to_gold`. The
    error of m labels is its expectation over all choices of m of them; a split majority is wrong half of the time.
    Raises `ConfigError` where no pair has a better completion, or not every label is given.
    """
    votes, gold = np.atleast_2d(np.asarray(votes, float)), np.asarray(gold, float)
    tells = (gold != 0) & ~np.isnan(votes).any(axis=0)
    if not tells.any():
        raise ConfigError("No pair has a better completion by gold and all of its labels.")
    votes, better = votes[:, tells], gold[tells] > 0
    labels = len(votes)
    right = np.where(better, votes, 1 - votes).sum(axis=0)  # (n,): an undecided label is half of one
    errors = [float(_wrong_majority(np.round(right).astype(int), labels, number).mean()) for number in
              range(1, labels + 1)]  # fmt: skip
    majority = np.where(right == labels / 2, 0.5, right > labels / 2)
    alone = np.where(right >= labels / 2, 1 - right / labels, right / labels)
    return LabelCurve(np.array(errors), float(1 - majority.mean()), float(alone.mean()))


def _wrong_majority(right: NDArray[np.int64], labels: int, number: int) -> NDArray[np.float64]:
    """Chance that of `number` labels drawn from `labels`, of which `right` are right, most are wrong: (n,)."""
    half = number / 2
    chance = hypergeom(labels, right, number)
    wrong = chance.cdf(np.ceil(half) - 1)
    return wrong + 0.5 * chance.pmf(half) if number % 2 == 0 else wrong


def _logistic_regression(features: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method with a ridge."""
    weights, ridge = np.zeros(features.shape[1]), 1e-5 * len(targets) * np.eye(features.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (chance - targets) + ridge @ weights
        curvature = (features * (chance * (1 - chance))[:, None]).T @ features + ridge
        step = np.linalg.solve(curvature, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    return weights
