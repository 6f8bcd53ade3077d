"""What is expected of runs that were not trained: losses, intervals, and what an error is worth in compute.

The interval is wider than a fitted law believes, since a law is wrong in ways that its own runs do not show:

    ln L +- q w s,   s^2 = FLOOR^2 + (SHARE sd)^2 + (OF_DROP drop)^2

sd is the law's own deviation with the noise of a run, drop how far ln L falls from the nearest runs to the predicted
one, w how wrong the law has been on the same table (`rolling_origin.py`), and q Student's quantile with FREEDOM
degrees. The constants maximise the predictive log score on published sweeps, each cluster of sweeps weighing alike;
`maquette backtest` learns them again, leaving each cluster out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from maquette.reports.tables import error_words
from maquette.scaling.laws.runs import Array, LawError, Runs
from maquette.statistics.intervals import check_level

FLOOR, SHARE, OF_DROP, FREEDOM = 0.0006, 0.6, 0.09, 8.0

_STEP = 0.05
"""Of ln C, for the slope."""

_LARGEST = np.log(np.finfo(float).max)


class Extrapolated(NamedTuple):
    """What a law says of runs (m,): `log_loss` ln L, its own `deviation` with the noise, how many `decades` they lie
    beyond the fitted runs, by how much ln L falls on the way (`drop`), and its `slope` d ln L / d ln C there."""

    log_loss: Array
    deviation: Array
    decades: Array
    drop: Array
    slope: Array

    @property
    def scale(self) -> Array:
        """The deviation that the interval is made of, on a table where the law is as wrong as elsewhere."""
        return np.asarray(np.sqrt(FLOOR**2 + (SHARE * self.deviation) ** 2 + (OF_DROP * self.drop) ** 2))


def extrapolate(
    log_loss: Callable[[Array, Array, Array], Array], deviation: Array, runs: Runs, params: Array, tokens: Array,
    compute: Array,
) -> Extrapolated:  # fmt: skip
    """What the law `log_loss` of (N, D, C), fitted to `runs`, says of further runs. Way and slope are those of equal
    tokens per parameter."""
    decades = runs.decades_below(params, tokens).min(axis=1)
    here = log_loss(params, tokens, compute)

    def smaller(factor: Array | float) -> Array:
        return log_loss(params / np.sqrt(factor), tokens / np.sqrt(factor), compute / factor)

    drop = np.abs(smaller(10.0**decades) - here)
    return Extrapolated(here, deviation, decades, drop, (here - smaller(np.exp(_STEP))) / _STEP)


@dataclass(frozen=True)
class Forecast:
    """`loss` in nats per token, `intervals[level] == (low, high)`, and `reach`, all of the shape that was asked for.

    `reach`: how many times beyond the runs of the fit, in N and D together. `slope`: d ln L / d ln C at the run's
    tokens per parameter, which prices an error in compute. `warnings`: what a reader must know first.
    """

    loss: Any
    intervals: Mapping[float, tuple[Any, Any]]
    reach: Any
    slope: Any
    warnings: tuple[str, ...] = ()

    def compute_factor(self, loss: Any) -> Any:
        """How many times the compute lies between the forecast and `loss`: 1.36 where it is 2.3% off and the loss falls
        as C^-.074."""
        with np.errstate(over="ignore", divide="ignore"):  # where the loss no longer falls no compute is enough: inf
            return _plain(np.exp(np.abs(np.log(np.asarray(loss, float) / self.loss)) / np.abs(self.slope)))

    def half_width(self, level: float = 0.9) -> Any:
        """Half the interval as a share of the loss."""
        low, high = self.intervals[level]
        return _plain(0.5 * (np.asarray(high) - low) / self.loss)

    def words(self, level: float = 0.9) -> str:
        """One run's forecast in a sentence."""
        low, high = self.intervals[level]
        return (
            f"{self.loss:.4f} nats a token ({level:.0%}: {low:.4f} to {high:.4f}), within "
            f"{error_words(max(self.loss - low, high - self.loss) / self.loss, self.slope)}"
        )


def make_forecast(
    law: Callable[[Array, Array, Array], Extrapolated],
    params: ArrayLike,
    tokens: ArrayLike,
    compute: ArrayLike,
    *,
    width: float,
    levels: Sequence[float],
    warnings: Sequence[str] = (),
    below: Callable[[Array], Array] | None = None,
) -> Forecast:
    """The forecast of runs, numbers or arrays that broadcast, from what a `law` says of columns (m,).

    Its intervals are `width` times as wide as elsewhere; `below` gives a further deviation of ln L from the decades
    beyond the fitted runs, on the low side only. Raises `LawError` for values that are not finite and above 0.
    """
    columns = np.broadcast_arrays(*(np.asarray(values, float) for values in (params, tokens, compute)))
    for name, values in zip(("params", "tokens", "compute"), columns, strict=True):
        if not np.all(np.isfinite(values) & (values > 0)):
            raise LawError(f"{name} of a run to predict must be finite and above 0.")
    parts = law(*(values.ravel() for values in columns))
    log_loss, decades, slope, scale = (
        values.reshape(columns[0].shape) for values in (parts.log_loss, parts.decades, parts.slope, width * parts.scale)
    )
    further = np.zeros_like(decades) if below is None else below(decades)
    intervals = {}
    for level in levels:
        check_level(level)
        quantile = t.ppf((1 + level) / 2, FREEDOM)
        low, high = log_loss - quantile * np.hypot(scale, further), log_loss + quantile * scale
        intervals[level] = (_plain(_exp(low)), _plain(_exp(high)))
    return Forecast(_plain(_exp(log_loss)), intervals, _plain(10**decades), _plain(slope), tuple(warnings))


def _exp(logs: Array) -> Array:
    """e to them; infinite where that is more than a float holds, which is no reason to warn."""
    return np.exp(logs, out=np.full(np.shape(logs), np.inf), where=~(np.asarray(logs) > _LARGEST))


def _plain(values: Any) -> Any:
    return float(values) if np.ndim(values) == 0 else values
