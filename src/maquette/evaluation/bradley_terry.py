"""The Bradley-Terry likelihood and its maximum, by Newton's method over cells of like battles."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PRIOR = 0.01
"""Precision of the normal prior (a standard deviation of 10 log-odds) where the maximum is not finite."""

_ITERATIONS, _PRECISION = 100, 1e-9


@dataclass(frozen=True)
class Cells:
    """Battles that are alike: of `first` against `second` (c,), with `outcome` 1, 0.5 or 0 for the first, `count` of
    them, each with `weight`; `covariates` (c, k) of the first less the second. `size` contenders."""

    size: int
    first: Integers
    second: Integers
    outcome: Floats
    weight: Floats
    count: Floats
    covariates: Floats

    def predict(self, parameters: Floats) -> Floats:
        """P(first wins) in each cell, (c,)."""
        return np.asarray(expit(self.advantage(parameters)))

    def advantage(self, parameters: Floats) -> Floats:
        """Log-odds that the first wins, (c,), from `parameters`: strengths, then coefficients."""
        advantage = parameters[self.first] - parameters[self.second]
        if self.covariates.shape[1]:
            advantage = advantage + self.covariates @ parameters[self.size :]
        return advantage

    @cached_property
    def pairs(self) -> tuple["Cells", Integers]:
        """One cell for each pair of contenders (without covariates nothing else matters), and each cell's pair."""
        key, place = np.unique(self.first * self.size + self.second, return_inverse=True)
        empty = np.zeros(len(key))
        joined = Cells(self.size, key // self.size, key % self.size, empty, empty, empty, np.zeros((len(key), 0)))
        return joined, place


def fit(cells: Cells, counts: Floats, *, prior: float = 0.0, start: Floats | None = None) -> Floats:
    """Strengths (mean zero), then coefficients, that make `counts` (c,) battles of each cell likeliest.

    Newton's method with halved steps where the likelihood would fall; it is concave, so this finds the maximum.
    """
    mass = counts * cells.weight
    wins = mass * cells.outcome
    if not cells.covariates.shape[1]:
        cells, place = cells.pairs
        mass = np.asarray(np.bincount(place, mass, minlength=len(cells.first)), np.float64)
        wins = np.asarray(np.bincount(place, wins, minlength=len(cells.first)), np.float64)
    parameters = np.zeros(cells.size + cells.covariates.shape[1]) if start is None else start.copy()
    advantage = cells.advantage(parameters)
    value = _log_likelihood(advantage, mass, wins, parameters, cells.size, prior)
    for _ in range(_ITERATIONS):
        predicted = expit(advantage)
        surprise = wins - mass * predicted
        gradient = np.concatenate([_by_contender(cells, surprise), surprise @ cells.covariates])
        gradient[: cells.size] -= prior * parameters[: cells.size]
        matrix = information(cells, mass * predicted * (1 - predicted), prior)
        try:
            if prior == 0 and len(parameters) > cells.size:
                raise np.linalg.LinAlgError
            change = np.linalg.solve(matrix, gradient)
        except np.linalg.LinAlgError:  # a covariate that decides every battle: its coefficient has no end
            change = np.linalg.lstsq(matrix, gradient, rcond=None)[0]
        size = 1.0
        while True:
            proposed = parameters + size * change
            advantage = cells.advantage(proposed)
            reached = _log_likelihood(advantage, mass, wins, proposed, cells.size, prior)
            if reached >= value - 1e-12 * abs(value) or size < 1e-6:
                break
            size /= 2
        parameters, value = proposed, reached
        if np.abs(size * change).max() < _PRECISION:
            break
    parameters[: cells.size] -= parameters[: cells.size].mean()
    return parameters


def information(cells: Cells, weight: Floats, prior: float, *, centered: bool = True) -> Floats:
    """Sum of `weight` x x' over cells, x a cell's row of the design: (parameters, parameters).

    `centered` adds what holds the mean of the strengths, which battles say nothing of, at zero.
    """
    size, extra = cells.size, cells.covariates.shape[1]
    met = np.bincount(cells.first * size + cells.second, weight, minlength=size * size).reshape(size, size)
    met = met + met.T
    matrix = np.zeros((size + extra, size + extra))
    matrix[:size, :size] = np.diag(met.sum(axis=1) + prior) - met
    if centered:
        matrix[:size, :size] += 1 / size
    for column in range(extra):
        weighed = weight * cells.covariates[:, column]
        matrix[:size, size + column] = _by_contender(cells, weighed)
        matrix[size + column, size:] = weighed @ cells.covariates
    matrix[size:, :size] = matrix[:size, size:].T
    return matrix


def _by_contender(cells: Cells, values: Floats) -> Floats:
    gained = np.bincount(cells.first, values, minlength=cells.size)
    return np.asarray(gained - np.bincount(cells.second, values, minlength=cells.size))


def _log_likelihood(
    advantage: Floats, mass: Floats, wins: Floats, parameters: Floats, size: int, prior: float
) -> float:
    penalty = prior / 2 * float(np.sum(parameters[:size] ** 2))
    return float(wins @ log_expit(advantage) + (mass - wins) @ log_expit(-advantage)) - penalty
