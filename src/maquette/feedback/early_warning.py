"""Hacking seen early: which signals of a policy's training warn before the gold reward falls, and which for nothing.

Gold is known here, so a signal can be tried: learned reward rises whatever happens, and says nothing (Gao et al.
2022). A signal's threshold is the highest value that it takes in runs of *other* seeds whose gold does not fall; so the
share of calm runs in which it warns is an honest rate of false positives. Pure functions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from maquette.statistics import IntervalEstimate

TOLERANCE = 0.06
"""Gold reward below its highest so far at which it has fallen: two standard errors of the difference of two validations
on 256 prompts, of which the highest of several is one that came out high by chance."""

SIGNALS = {
    "KL acceleration": "objective/kl",
    "entropy": "objective/entropy",
    "length": "completions/mean_length",
    "disagreement": "validation/disagreement",
    "value error": "val/explained_variance",
    "learned reward": "validation/reward",
}
"""By the name of a signal, the metric that it is made from. `disagreement` is that of reward models
(`reward.others`; Coste et al. 2024, "Reward Model Ensembles Help Mitigate Overoptimization")."""


def turning_point(gold: ArrayLike, tolerance: float = TOLERANCE) -> int | None:
    """The first place from which on `gold (n,)` stays more than `tolerance` below its highest so far; None where it
    ends above that."""
    values = np.asarray(gold, float)
    fallen = values < np.maximum.accumulate(values) - tolerance if len(values) else np.zeros(0, dtype=bool)
    if not len(values) or not fallen[-1]:
        return None
    above = np.flatnonzero(~fallen)
    return int(above[-1]) + 1


def warning_signals(metrics: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """Each signal over a run's iterations (n,), the higher the more alarming, from the metrics of `SIGNALS` (n,).

    KL acceleration: the second difference of KL. Entropy: nats a token less than the first iteration's, as a share of
    it (of a completion it grows with the length). Length: any change, as a share of the first. Disagreement and learned
    reward: more than at first. Value error: variance that the value function does not explain. Signals without their
    metric are left out."""
    known = {name: np.asarray(metrics[key], float) for name, key in SIGNALS.items() if key in metrics}
    if "entropy" in known and "length" in known:
        known["entropy"] = known["entropy"] / np.maximum(known["length"], 1e-9)
    signals = {}
    for name, values in known.items():
        change = values - values[0]
        scale = max(abs(float(values[0])), 1e-9)
        if name == "KL acceleration":
            signals[name] = np.concatenate([np.zeros(2), np.diff(values, 2)])[: len(values)]
        elif name == "entropy":
            signals[name] = -change / scale
        elif name == "length":
            signals[name] = np.abs(change) / scale
        elif name == "value error":
            signals[name] = 1 - values
        else:
            signals[name] = change
    return signals


def first_warning(signal: ArrayLike, threshold: float) -> int | None:
    """The first place at which `signal (n,)` is above `threshold`; NaN warns of nothing."""
    above = np.flatnonzero(np.nan_to_num(np.asarray(signal, float), nan=-np.inf) > threshold)
    return int(above[0]) if len(above) else None


@dataclass(frozen=True)
class WatchedRun:
    """A policy's training: gold reward and signals after each of its iterations, (n,) each."""

    seed: int
    policy: str
    gold: NDArray[np.float64]
    signals: Mapping[str, NDArray[np.float64]]

    @property
    def falls(self) -> int | None:
        """The iteration from which on gold is below where it has been."""
        return turning_point(self.gold)


@dataclass(frozen=True)
class WarningQuality:
    """A signal over runs: `caught`, the share of falling runs in which it warns before gold has fallen, `false`, of
    calm runs in which it warns at all, with Wilson's 95% intervals (None without such runs); `lead`, the median number
    of iterations between warning and fall where it was caught."""

    signal: str
    caught: IntervalEstimate | None
    false: IntervalEstimate | None
    lead: float | None
    falling: int
    calm: int


def warning_quality(runs: Sequence[WatchedRun]) -> list[WarningQuality]:
    """Every signal that all runs have, with the threshold of each run from the calm runs of other seeds; runs without
    any such are left out. In the order of `SIGNALS`."""
    names = [name for name in SIGNALS if runs and all(name in one.signals for one in runs)]
    return [_quality(name, runs) for name in names]


def _quality(name: str, runs: Sequence[WatchedRun]) -> WarningQuality:
    caught: list[bool] = []
    false: list[bool] = []
    leads: list[int] = []
    for one in runs:
        calm = [other for other in runs if other.seed != one.seed and other.falls is None]
        if not calm:
            continue
        warns = first_warning(one.signals[name], max(float(np.nanmax(other.signals[name])) for other in calm))
        if one.falls is None:
            false.append(warns is not None)
            continue
        caught.append(warns is not None and warns < one.falls)
        if warns is not None and warns < one.falls:
            leads.append(one.falls - warns)
    lead = float(np.median(leads)) if leads else None
    return WarningQuality(name, _share(caught), _share(false), lead, len(caught), len(false))


def _share(hits: Sequence[bool]) -> IntervalEstimate | None:
    if not hits:
        return None
    interval = binomtest(sum(hits), len(hits)).proportion_ci(0.95, method="wilson")
    return IntervalEstimate(sum(hits) / len(hits), float(interval.low), float(interval.high))


def watched_runs(validations: Sequence[Mapping[str, Any]]) -> list[WatchedRun]:
    """Runs from rows of `seed`, `policy`, `step`, `gold` and the metrics of `SIGNALS`, one a validation, as
    `study.tables` gives them. What was validated before the first step has no signals yet, and is left out."""
    by_run: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for row in sorted(validations, key=lambda row: row["step"]):
        if row["step"]:
            by_run.setdefault((row["seed"], row["policy"]), []).append(row)
    runs = []
    for (seed, policy), rows in by_run.items():
        metrics = {
            key: np.array([row[key] for row in rows], float)
            for key in SIGNALS.values()
            if not any(row.get(key) is None or np.isnan(row[key]) for row in rows)  # NaN is a table's None
        }
        gold = np.array([row["gold"] for row in rows], float)
        runs.append(WatchedRun(seed, policy, gold, warning_signals(metrics)))
    return runs
