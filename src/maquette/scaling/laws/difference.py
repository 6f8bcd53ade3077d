"""Two families against compute: does the change move the line, or tilt it?

Better activations shift the constant; LSTMs against Transformers differ in slope too (Kaplan et al. 2020, figure 7).
A shift is worth a fixed factor of compute for ever; a tilt grows with scale. Both lines are fitted in log-log with a
common scatter, so the differences and their intervals are ordinary regression.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from maquette.scaling.errors import LawError
from maquette.scaling.laws.power_law import PowerLawFit, fit_power_law
from maquette.statistics import Interval, student_interval


@dataclass(frozen=True)
class LawDifference:
    """Second family less first. `slope`: difference of the exponents (negative: the second falls faster).

    `ratio`: second over first loss at the compute `at`, the middle of both, less one. `compute_factor`: how many
    times the first family's compute there reaches the second's loss. `words`: the result in a sentence.
    """

    slope: float
    slope_interval: Interval
    ratio: float
    ratio_interval: Interval
    compute_factor: float
    at: float
    first: PowerLawFit
    second: PowerLawFit
    words: str


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
    return LawDifference(
        slope=slope,
        slope_interval=slope_interval,
        ratio=float(np.expm1(gap)),
        ratio_interval=ratio_interval,
        compute_factor=float(np.exp(gap / first.exponent)),
        at=float(np.exp(centre)),
        first=first,
        second=second,
        words=_in_words(
            slope, slope_interval, float(np.expm1(gap)), ratio_interval, names, float(np.exp(centre)), level
        ),
    )


def _in_words(
    slope: float,
    slope_interval: Interval,
    ratio: float,
    ratio_interval: Interval,
    names: tuple[str, str],
    at: float,
    level: float,
) -> str:
    said = (
        f"At {at:.2g} the loss of {names[1]} is {ratio:+.1%} from that of {names[0]} "
        f"({ratio_interval.low:+.1%} to {ratio_interval.high:+.1%}), and its exponent {slope:+.3f} "
        f"({slope_interval.low:+.3f} to {slope_interval.high:+.3f}; {level:.0%} intervals): "
    )
    if not slope_interval.contains(0):
        return said + f"the slope differs, and the gap {'widens' if slope * ratio > 0 else 'closes'} with scale."
    if not ratio_interval.contains(0):
        return said + "only the constant differs, as far as these runs show."
    return said + "these runs show no difference."
