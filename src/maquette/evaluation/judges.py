"""How far judges agree: with each other, by chance, and on who is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata, spearmanr

from maquette.artifacts import ConfigError
from maquette.statistics import Interval, percentile_interval, resample_counts


@dataclass(frozen=True)
class Agreement:
    """`raw`: share of cases on which two judges say the same; `corrected`: Cohen's kappa, what lies above the share
    that `by_chance` would be reached by judges who only know how often each label is right. `cases` judged by both."""

    raw: float
    by_chance: float
    corrected: float
    cases: int


def agreement(first: Sequence[Any] | NDArray[Any], second: Sequence[Any] | NDArray[Any]) -> Agreement:
    """Agreement of two judges' labels (n,); cases where either is None (or NaN) count for neither.

    Cohen 1960. Where both give one label throughout there is nothing to correct for, and kappa is 0 by convention.
    """
    if len(first) != len(second):
        raise ConfigError(f"The judges labelled {len(first)} and {len(second)} cases.", "Give a label (or None) each.")
    pairs = pd.DataFrame({"first": list(first), "second": list(second)}, dtype=object).dropna()
    if not len(pairs):
        raise ConfigError("The two judges have no case in common.")
    labels, coded = np.unique(pairs.astype(str).to_numpy(), return_inverse=True)
    a, b = coded.reshape(-1, 2).T
    raw = float(np.mean(a == b))
    shares = [np.bincount(column, minlength=len(labels)) / len(a) for column in (a, b)]
    chance = float(shares[0] @ shares[1])
    return Agreement(raw, chance, (raw - chance) / (1 - chance) if chance < 1 else 0.0, len(a))


@dataclass(frozen=True)
class RankAgreement:
    """A cheap judge's leaderboard against a trusted one's: Spearman's and Kendall's coefficients over `policies`, with
    Spearman's interval over prompts where scores of each prompt were given."""

    spearman: float
    kendall: float
    policies: int
    interval: Interval | None = None


def rank_agreement(
    cheap: Mapping[str, float | ArrayLike],
    trusted: Mapping[str, float | ArrayLike],
    *,
    resamples: int = 2000,
    level: float = 0.9,
    seed: int = 0,
) -> RankAgreement:
    """Compares two judges' scores of the same policies: a number each, or one for each of the same prompts (n,).

    Given prompts, the interval draws them again, the same ones for both judges and all policies.
    """
    if set(cheap) != set(trusted):
        odd = sorted(set(cheap) ^ set(trusted))[0]
        raise ConfigError(f"Only one of the judges scored {odd}.", "Compare them on the same policies.")
    if len(cheap) < 3:
        raise ConfigError(f"{len(cheap)} policies have no rank correlation.", "Compare at least three.")
    names = sorted(cheap)
    columns = [[np.atleast_1d(np.asarray(judge[name], float)) for name in names] for judge in (cheap, trusted)]
    means = [np.array([column.mean() for column in judge]) for judge in columns]
    sizes = {len(column) for judge in columns for column in judge}
    interval = None
    if len(sizes) == 1 and sizes != {1}:
        counts = resample_counts(sizes.pop(), resamples, np.random.default_rng(seed))
        drawn = [counts @ np.stack(judge).T for judge in columns]
        interval = percentile_interval(_spearman_rows(*drawn), level)
    spearman, kendall = spearmanr(means[0], means[1]).statistic, kendalltau(means[0], means[1]).statistic
    return RankAgreement(float(spearman), float(kendall), len(names), interval)


def _spearman_rows(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Spearman's coefficient of each row, (resamples, policies) both."""
    ranks = [rankdata(rows, axis=1) for rows in (first, second)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(a)), where=scale > 0)
