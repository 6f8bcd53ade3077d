"""Bootstrap, intervals and paired tests: what the laws, the evaluation and the feedback share."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.statistics.intervals import (
        Interval,
        bca_interval,
        interval_score,
        percentile_interval,
        student_interval,
    )
    from maquette.statistics.ranks import RankInterval, rank_intervals
    from maquette.statistics.resampling import (
        Estimate,
        PairedDifference,
        bootstrap,
        bootstrap_mean,
        paired_bootstrap,
        resample_counts,
    )

_HOMES = {
    "resampling": (
        "Estimate",
        "PairedDifference",
        "bootstrap",
        "bootstrap_mean",
        "paired_bootstrap",
        "resample_counts",
    ),
    "intervals": (
        "Interval",
        "bca_interval",
        "interval_score",
        "percentile_interval",
        "student_interval",
    ),
    "ranks": ("RankInterval", "rank_intervals"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Estimate",
    "Interval",
    "PairedDifference",
    "RankInterval",
    "bca_interval",
    "bootstrap",
    "bootstrap_mean",
    "interval_score",
    "paired_bootstrap",
    "percentile_interval",
    "rank_intervals",
    "resample_counts",
    "student_interval",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
