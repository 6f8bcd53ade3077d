"""Two families against compute: does a change move the line, tilt it, and where do the two cross?

Better activations shift the constant; LSTMs against Transformers differ in slope too (Kaplan et al. 2020, figure 7). A
shift is worth a fixed factor of compute for ever; a tilt grows with scale, and what is worse at a small size may be
better at a large one. Both lines of ln L over ln C are fitted with a common scatter, so the differences and their
intervals are those of ordinary regression, and the interval of the crossing is Fieller's (1954): every compute at which
the regression can not tell the two apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from maquette.scaling.laws.forecast import FLOOR, OF_DROP, Forecast
from maquette.scaling.laws.power_law import PowerLawFit, fit_power_law
from maquette.scaling.laws.runs import Array, LawError
from maquette.statistics import Interval, student_interval


@dataclass(frozen=True)
class LawDifference:
    """Second family less first. `slope`: difference of the exponents (negative: the second falls faster).

    `ratio`: second over first loss at the compute `at`, the middle of both, as a relative difference.
    `compute_factor`: how many times the first family's compute there reaches the second's loss. `crossing`: the compute
    at which both reach the same loss, with an interval that is open to both sides where the slopes do not differ.
    `covariance` (2, 2): of the gap at `at` and its slope; `largest`: the largest compute that both families have.
    `words`: the result in a sentence or two.
    """

    slope: float
    slope_interval: Interval
    ratio: float
    ratio_interval: Interval
    compute_factor: float
    at: float
    first: PowerLawFit
    second: PowerLawFit
    crossing: float
    crossing_interval: Interval
    covariance: Array
    degrees_of_freedom: int
    largest: float
    words: str

    def predict(self, compute: ArrayLike, levels: Sequence[float] = (0.5, 0.9)) -> Forecast:
        """The difference of the losses at `compute` as a share of the first: `loss` and intervals of the forecast are
        that difference. Beyond the runs the interval also counts that lines bend."""
        u = np.log(np.asarray(compute, float) / self.at)
        gap = np.log1p(self.ratio) + self.slope * u
        variance = self.covariance[0, 0] + 2 * self.covariance[0, 1] * u + self.covariance[1, 1] * u**2
        beyond = np.maximum(0.0, np.log(np.asarray(compute, float) / self.largest))
        error = np.sqrt(variance + FLOOR**2 + (OF_DROP * self.slope * beyond) ** 2)
        intervals = {}
        for level in levels:
            half = t.ppf((1 + level) / 2, self.degrees_of_freedom) * error
            intervals[level] = (np.expm1(gap - half), np.expm1(gap + half))
        return Forecast(np.expm1(gap), intervals, np.exp(beyond), self.slope)


def compare_families(
    first_compute: ArrayLike,
    first_loss: ArrayLike,
    second_compute: ArrayLike,
    second_loss: ArrayLike,
    *,
    names: tuple[str, str] = ("the first", "the second"),
    level: float = 0.9,
) -> LawDifference:
    """Compares loss over compute of two families, best runs or minima per budget, (n,) and (m,) values.

    Any x does as well as compute: parameters, or tokens. Raises `LawError` with fewer than five points in all, or
    fewer than two distinct x in a family.
    """
    first, second = (
        fit_power_law(first_compute, first_loss, level=level),
        fit_power_law(second_compute, second_loss, level=level),
    )
    counts = np.array([len(first.residuals), len(second.residuals)])
    freedom = int(counts.sum()) - 4
    if freedom < 1:
        raise LawError("Two points a family fix both lines and leave no scatter to judge them by.", "Add a budget.")
    variance = float(first.residuals @ first.residuals + second.residuals @ second.residuals) / freedom
    u = [np.log(np.asarray(x, float)) for x in (first_compute, second_compute)]
    centre = float(np.concatenate(u).mean())
    spreads = np.array([np.sum((x - x.mean()) ** 2) for x in u])
    slope = second.exponent - first.exponent
    slope_interval = student_interval(slope, float(np.sqrt(variance * np.sum(1 / spreads))), freedom, level)
    offsets = np.array([centre - x.mean() for x in u])
    gap = float(np.log(second.law.value(np.exp(centre)) / first.law.value(np.exp(centre))))
    error = float(np.sqrt(variance * np.sum(1 / counts + offsets**2 / spreads)))
    low, high = student_interval(gap, error, freedom, level)
    ratio_interval = Interval(float(np.expm1(low)), float(np.expm1(high)))
    shared = float(np.sum(offsets / spreads))
    covariance = variance * np.array(
        [[np.sum(1 / counts + offsets**2 / spreads), shared], [shared, np.sum(1 / spreads)]]
    )
    crossing, crossing_interval = _crossing(gap, slope, covariance, freedom, level, float(np.exp(centre)))
    return LawDifference(
        slope=slope,
        slope_interval=slope_interval,
        ratio=float(np.expm1(gap)),
        ratio_interval=ratio_interval,
        compute_factor=float(np.exp(gap / first.exponent)),
        at=float(np.exp(centre)),
        first=first,
        second=second,
        crossing=crossing,
        crossing_interval=crossing_interval,
        covariance=covariance,
        degrees_of_freedom=freedom,
        largest=float(np.exp(min(x.max() for x in u))),
        words=_in_words(
            slope, slope_interval, float(np.expm1(gap)), ratio_interval, names, float(np.exp(centre)), level
        )
        + _crossing_words(crossing, crossing_interval, slope, names, level),
    )


def _crossing(
    gap: float, slope: float, covariance: Array, freedom: int, level: float, at: float
) -> tuple[float, Interval]:
    """Where gap + slope u is zero, u = ln C - ln `at`, and where it is not told from zero: the roots of
    (gap + slope u)^2 = q^2 var(u) (Fieller 1954)."""
    quantile = float(t.ppf((1 + level) / 2, freedom))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        crossing = float(at * np.exp(-np.float64(gap) / slope))
    square = slope**2 - quantile**2 * covariance[1, 1]
    linear = gap * slope - quantile**2 * covariance[0, 1]
    rest = linear**2 - square * (gap**2 - quantile**2 * covariance[0, 0])
    if square <= 0 or rest < 0:
        return crossing, Interval(0.0, np.inf)
    with np.errstate(over="ignore"):
        ends = at * np.exp((-linear + np.array([-1, 1]) * np.sqrt(rest)) / square)
    return crossing, Interval(float(ends[0]), float(ends[1]))


def _crossing_words(crossing: float, interval: Interval, slope: float, names: tuple[str, str], level: float) -> str:
    if not np.isfinite(interval.high):
        return ""
    better = names[1] if slope < 0 else names[0]
    where = f"{crossing:.2g} ({level:.0%}: {interval.low:.2g} to {interval.high:.2g})"
    return f" The lines cross at {where}; above that {better} is the better one."


def _in_words(
    slope: float,
    slope_interval: Interval,
    ratio: float,
    ratio_interval: Interval,
    names: tuple[str, str],
    at: float,
    level: float,
) -> str:
    text = (
        f"At {at:.2g} the loss of {names[1]} is {ratio:+.1%} from that of {names[0]} "
        f"({ratio_interval.low:+.1%} to {ratio_interval.high:+.1%}), and its exponent {slope:+.3f} "
        f"({slope_interval.low:+.3f} to {slope_interval.high:+.3f}; {level:.0%} intervals): "
    )
    if not slope_interval.contains(0):
        return text + f"the slope differs, and the gap {'widens' if slope * ratio > 0 else 'closes'} with scale."
    if not ratio_interval.contains(0):
        return text + "only the constant differs, as far as these runs show."
    return text + "these runs show no difference."


def decision_accuracy(losses: ArrayLike, noise: float = 0.0) -> Array:
    """How often the ranking at a smaller budget holds at the largest: `losses` (families, budgets), the largest budget
    last, nan where a family has no run -> (budgets - 1,), the share of the pairs of families whose order is the same
    (Magnusson et al. 2025, "DataDecide"). Pairs within the relative `noise` of each other at the largest have no order
    and do not count; nan where no pair is left. Raises `LawError` where there are not two budgets."""
    table = np.log(np.asarray(losses, float))
    if table.ndim != 2 or table.shape[1] < 2:
        raise LawError("Decision accuracy needs losses of families at two budgets or more.")
    first, second = np.triu_indices(len(table), 1)
    gaps = table[first] - table[second]  # (pairs, budgets)
    known = np.isfinite(gaps[:, :-1]) & (np.abs(gaps[:, -1:]) > noise)
    right = np.sign(gaps[:, :-1]) == np.sign(gaps[:, -1:])
    counts = known.sum(axis=0)
    return np.where(counts > 0, (right & known).sum(axis=0) / np.maximum(counts, 1), np.nan)
