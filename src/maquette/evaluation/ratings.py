"""Ratings from battles: Bradley-Terry by maximum likelihood, with ties, weights, covariates and honest intervals.

Bradley & Terry 1952: P(i beats j) = sigmoid(s_i - s_j + x'c), with s the strengths (mean zero, in log-odds) and x what
else differs between the two completions (length, lists, headings), so that s is what remains at equal style. A tie is
half a win for each. Battles between the same two contenders with the same outcome are one cell with a count: a million
battles of a hundred models are at most fifteen thousand cells, and resampling battles is one multinomial over them.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from maquette.artifacts import ConfigError
from maquette.evaluation.bradley_terry import PRIOR, Cells, fit, information
from maquette.statistics import Interval, RankInterval, percentile_interval, rank_intervals, student_interval
from maquette.statistics.resampling import check_resamples

Floats = NDArray[np.float64]

ELO = 400 / np.log(10)
"""Elo points for one unit of log-odds."""

_RANK_DRAWS = 2000


@dataclass(frozen=True)
class Ratings:
    """Each contender's strength in log-odds (mean zero), strongest first, with its interval and its ranks'.

    `coefficients` of the covariates with their intervals; `battles` of each contender; `warnings` say which strengths
    have no finite estimate; `level` is the intervals' coverage.
    """

    strengths: dict[Hashable, float]
    intervals: dict[Hashable, Interval]
    rank_intervals: dict[Hashable, RankInterval]
    battles: dict[Hashable, int]
    level: float
    coefficients: dict[str, float] = field(default_factory=dict)
    coefficient_intervals: dict[str, Interval] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def elo(self, name: Hashable) -> float:
        """The strength on Elo's scale, around 1000."""
        return 1000 + ELO * self.strengths[name]


def bradley_terry_ratings(
    winners: ArrayLike,
    losers: ArrayLike,
    *,
    ties: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    covariates: ArrayLike | Mapping[str, ArrayLike] | None = None,
    bootstrap: int = 0,
    level: float = 0.9,
    seed: int = 0,
) -> Ratings:
    """Strengths from battles: `winners` and `losers` (n,) name the two of each.

    `ties` (n,) bool: true where neither won. `weights` (n,): of battles, such as those of `topic_weights`.
    `covariates` (n, k), or a name for each column: the winner's value less the loser's. `bootstrap`: resamples of
    battles for the intervals; with 0 they come from the sandwich covariance, their ranks from draws of it.

    Raises `ConfigError` where contenders fall into groups that never met (naming them), for a contender that meets
    itself, and for columns of different lengths.
    """
    battles = _battles(winners, losers, ties, weights)
    matrix, columns = _covariates(covariates, len(battles.first))
    cells = _cells(battles, matrix)
    names = battles.names
    notes, prior = _check_connected(cells, names)
    estimate = fit(cells, cells.count, prior=prior)
    if bootstrap:
        check_resamples(bootstrap, level)
        samples = _resample(cells, estimate, bootstrap, seed)
        intervals = [percentile_interval(column, level) for column in samples.T]
    else:
        errors, covariance = _sandwich(cells, estimate, prior)
        intervals = [student_interval(s, e, np.inf, level) for s, e in zip(estimate, errors, strict=True)]
        samples = _draws(estimate, covariance, seed)
    size = len(names)
    ranks = rank_intervals(estimate[:size], samples[:, :size], level)
    order = np.argsort(-estimate[:size], kind="stable")
    fought = np.bincount(battles.first, minlength=size) + np.bincount(battles.second, minlength=size)
    return Ratings(
        strengths={names[i]: float(estimate[i]) for i in order},
        intervals={names[i]: intervals[i] for i in order},
        rank_intervals={names[i]: ranks[i] for i in order},
        battles={names[i]: int(fought[i]) for i in order},
        level=level,
        coefficients={name: float(estimate[size + i]) for i, name in enumerate(columns)},
        coefficient_intervals={name: intervals[size + i] for i, name in enumerate(columns)},
        warnings=notes,
    )


def topic_weights(topics: Sequence[str], shares: Mapping[str, float] | None = None) -> Floats:
    """A weight for each battle, with mean one, so that `topics` count as `shares` say (by default all alike).

    An arena's users are not everybody: this shows what the ratings were if prompts came from elsewhere. Raises
    `ConfigError` for a topic without a share, or a share without battles.
    """
    frequencies = pd.Series(list(topics)).value_counts()
    target = dict(shares) if shares is not None else dict.fromkeys(frequencies.index, 1.0)
    if unknown := sorted(set(frequencies.index) ^ set(target)):
        raise ConfigError(
            f"The topic {unknown[0]!r} has no {'share' if unknown[0] in frequencies.index else 'battle'}."
        )
    total = sum(target.values())
    if total <= 0 or min(target.values()) < 0:
        raise ConfigError("Shares of topics must not be negative, and not all zero.")
    factor = {topic: target[topic] / total * len(topics) / frequencies[topic] for topic in frequencies.index}
    return np.array([factor[topic] for topic in topics], float)


def topic_shares(topics: Sequence[str]) -> dict[str, float]:
    """The share of battles on each topic, largest first."""
    counts = pd.Series(list(topics)).value_counts()
    return {str(topic): float(count) / len(topics) for topic, count in counts.items()}


@dataclass(frozen=True)
class _Battles:
    names: list[Any]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    outcome: Floats
    weight: Floats


def _battles(winners: ArrayLike, losers: ArrayLike, ties: ArrayLike | None, weights: ArrayLike | None) -> _Battles:
    first, second = np.asarray(winners), np.asarray(losers)
    count = len(first)
    tied = np.zeros(count, bool) if ties is None else np.asarray(ties, bool)
    weight = np.ones(count) if weights is None else np.asarray(weights, float)
    for name, column in (("losers", second), ("ties", tied), ("weights", weight)):
        if column.shape != (count,):
            raise ConfigError(f"{name} has shape {column.shape}.", f"Give one value for each of {count} battles.")
    if not count:
        raise ConfigError("There are no battles.")
    if np.any(~np.isfinite(weight) | (weight < 0)):
        raise ConfigError("A weight is negative or not finite.")
    codes, names = _coded(np.concatenate([first, second]))
    order = sorted(range(len(names)), key=lambda code: (str(type(names[code])), names[code]))
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    codes = place[codes]
    a, b = codes[:count], codes[count:]
    if len(itself := np.flatnonzero(a == b)):
        raise ConfigError(f"In battle {itself[0]} {first[itself[0]]} meets itself.", "Leave such battles out.")
    return _Battles([names[code] for code in order], a, b, np.where(tied, 0.5, 1.0), weight)


def _coded(values: NDArray[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """A number for each value, and the distinct values.

    NumPy's fixed-width text goes by a hash of its characters, checked afterwards: twenty times as fast as by strings.
    """
    if values.dtype.kind == "U" and values.dtype.itemsize:
        characters = np.ascontiguousarray(values).view(np.uint32).reshape(len(values), -1)
        factors = np.random.default_rng(0).integers(1, 2**63, characters.shape[1], dtype=np.uint64) | np.uint64(1)
        codes, keys = pd.factorize(characters.astype(np.uint64) @ factors)
        member = np.empty(len(keys), np.int64)
        member[codes] = np.arange(len(values))
        names = values[member]
        if np.array_equal(names[codes], values):
            return codes.astype(np.int64), names.tolist()
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    return codes.astype(np.int64), [name.item() if isinstance(name, np.generic) else name for name in distinct]


def _covariates(given: ArrayLike | Mapping[str, ArrayLike] | None, count: int) -> tuple[Floats, list[str]]:
    if given is None:
        return np.zeros((count, 0)), []
    if isinstance(given, Mapping):
        names, matrix = [str(name) for name in given], np.stack([np.asarray(c, float) for c in given.values()], axis=1)
    else:
        matrix = np.asarray(given, float)
        matrix = matrix[:, None] if matrix.ndim == 1 else matrix
        names = [f"covariate {i}" for i in range(matrix.shape[1])]
    if matrix.shape[0] != count or not np.all(np.isfinite(matrix)):
        raise ConfigError(f"covariates have shape {matrix.shape} or gaps.", f"Give a finite row for {count} battles.")
    return matrix, names


def _cells(battles: _Battles, matrix: Floats) -> Cells:
    """Battles that are alike, together. The lower contender comes first, so that the order of names does not matter."""
    swap = battles.first > battles.second
    low, high = np.where(swap, battles.second, battles.first), np.where(swap, battles.first, battles.second)
    outcome = np.where(swap, 1 - battles.outcome, battles.outcome)
    size = len(battles.names)
    matrix = np.where(swap[:, None], -matrix, matrix)
    count: Floats = np.ones(len(low))
    weight = battles.weight
    if not matrix.shape[1]:
        key = (low * size + high) * 3 + np.rint(2 * outcome).astype(np.int64)
        if np.ptp(weight) == 0:
            forecast = np.bincount(key)
            key = np.asarray(np.flatnonzero(forecast), np.int64)
            weight, count = np.full(len(key), weight[0], np.float64), forecast[key].astype(np.float64)
        else:
            grouped = pd.DataFrame({"key": key, "weight": weight}).groupby(["key", "weight"], sort=True).size()
            key = grouped.index.get_level_values("key").to_numpy()
            weight = grouped.index.get_level_values("weight").to_numpy(float)
            count = np.asarray(grouped.to_numpy(), np.float64)
        outcome, low, high = (key % 3) / 2, key // 3 // size, key // 3 % size
        matrix = np.zeros((len(low), 0))
    used = weight > 0
    return Cells(size, low[used], high[used], outcome[used], weight[used], count[used], matrix[used])


def _check_connected(cells: Cells, names: Sequence[Any]) -> tuple[tuple[str, ...], float]:
    """What to warn of, and the prior that holds strengths without a finite estimate (Ford 1957: there is one where
    everybody is linked to everybody by a chain of wins)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    won = cells.outcome > 0
    lost = cells.outcome < 1
    rows = np.concatenate([cells.first[won], cells.second[lost]])
    columns = np.concatenate([cells.second[won], cells.first[lost]])
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(cells.size, cells.size)).tocsr()
    groups, member = connected_components(graph, directed=True, connection="weak")
    if groups > 1:
        listed = "; ".join(
            _listed([names[int(i)] for i in np.flatnonzero(member == group)]) for group in range(min(groups, 5))
        )
        raise ConfigError(
            f"{groups} groups never met, directly or through others, so their ratings can't be compared: {listed}.",
            "Add battles between them, or rate each group by itself.",
        )
    groups, member = connected_components(graph, directed=True, connection="strong")
    if groups == 1:
        return (), 0.0
    largest = np.bincount(member).argmax()
    outside = _listed([names[int(i)] for i in np.flatnonzero(member != largest)])
    return (f"{outside} won or lost every battle with the others: no finite estimate, held by a weak prior.",), PRIOR


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:6])
    return f"[{shown}{f' and {len(names) - 6} more' if len(names) > 6 else ''}]"


def _resample(cells: Cells, estimate: Floats, resamples: int, seed: int) -> Floats:
    """Fits on resamples of battles, (resamples, parameters): a few steps of Newton's from the estimate each."""
    generator = np.random.default_rng(seed)
    total = int(cells.count.sum())
    share = cells.count / total
    draws = (generator.multinomial(total, share).astype(float) for _ in range(resamples))
    return np.array([fit(cells, counts, prior=PRIOR, start=estimate) for counts in draws])


def _sandwich(cells: Cells, estimate: Floats, prior: float) -> tuple[Floats, Floats]:
    """Standard errors and covariance, right also where the model is not (White 1982)."""
    predicted = cells.predict(estimate)
    mass = cells.count * cells.weight
    bread = information(cells, mass * predicted * (1 - predicted), prior)
    meat = information(cells, cells.count * cells.weight**2 * (cells.outcome - predicted) ** 2, 0.0, centered=False)
    inverse = np.linalg.pinv(bread, hermitian=True)
    covariance = inverse @ meat @ inverse
    return np.sqrt(np.maximum(np.diag(covariance), 0)), covariance


def _draws(estimate: Floats, covariance: Floats, seed: int) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    noise = np.random.default_rng(seed).standard_normal((_RANK_DRAWS, len(estimate)))
    return np.asarray(estimate + (noise * np.sqrt(np.maximum(values, 0))) @ vectors.T)
