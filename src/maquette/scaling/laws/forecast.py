"""What is expected of runs that were not trained: losses, intervals, and what an error is worth in compute.

The interval is wider than the fitted law believes, since a law is wrong in ways that its own runs do not show:

    ln L +- q s,   s^2 = FLOOR^2 + (SHARE sd)^2 + (PER_DECADE d)^2

sd is the law's own deviation with the noise of a run, d how many decades the run lies beyond the fitted ones, and q
Student's quantile with FREEDOM degrees. The constants were chosen on published sweeps by rolling origin
(`maquette backtest`), leaving each cluster of sweeps out in turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from maquette.scaling.laws.runs import Array
from maquette.statistics.intervals import check_level

FLOOR, SHARE, PER_DECADE, FREEDOM = 0.0012, 0.45, 0.0027, 2.2


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
        """How many times the compute reaches the forecast where `loss` came out instead: 1.36 where it is 2.3% above
        and the loss falls as C^-.074."""
        return _plain(np.exp(np.abs(np.log(np.asarray(loss, float) / self.loss)) / np.abs(self.slope)))

    def half_width(self, level: float = 0.9) -> Any:
        """Half the interval as a share of the loss."""
        low, high = self.intervals[level]
        return _plain(0.5 * (np.asarray(high) - low) / self.loss)

    def words(self, level: float = 0.9) -> str:
        """One run's forecast in a sentence."""
        low, high = self.intervals[level]
        return (
            f"{self.loss:.4f} nats a token ({level:.0%}: {low:.4f} to {high:.4f}), at most "
            f"{error_words(max(self.loss - low, high - self.loss) / self.loss, self.slope)}"
        )


def error_words(relative: float, slope: float) -> str:
    """A relative error of the loss, in words: "2.3% of the loss, as much as 1.36 times the compute"."""
    factor = np.exp(np.log1p(abs(relative)) / abs(slope)) if slope else np.inf
    return f"{abs(relative):.1%} of the loss, as much as {factor:.3g} times the compute"


def make_forecast(
    log_loss: Array,
    deviation: Array,
    decades: Array,
    slope: Array,
    levels: Sequence[float],
    warnings: Sequence[str] = (),
) -> Forecast:
    """The forecast of ln L with the law's own `deviation` at runs that lie `decades` beyond the fitted ones."""
    scale = np.sqrt(FLOOR**2 + (SHARE * deviation) ** 2 + (PER_DECADE * decades) ** 2)
    intervals = {}
    for level in levels:
        check_level(level)
        half = t.ppf((1 + level) / 2, FREEDOM) * scale
        intervals[level] = (_plain(np.exp(log_loss - half)), _plain(np.exp(log_loss + half)))
    return Forecast(_plain(np.exp(log_loss)), intervals, _plain(10**decades), _plain(slope), tuple(warnings))


def _plain(values: Array) -> Any:
    return float(values) if np.ndim(values) == 0 else values
