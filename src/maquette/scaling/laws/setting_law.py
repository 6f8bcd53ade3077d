"""The law of a hyperparameter: its best value at each size, and the line through these in log-log.

Learning rate and batch are swept on small models, the best of each size is the minimum of a parabola in the
setting's logarithm, and a power law carries it to sizes that are never swept (Porian et al. 2024, section 4).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.scaling.laws.minimum import curve_minimum
from maquette.scaling.laws.power_law import PowerLawFit, fit_power_law
from maquette.scaling.laws.runs import Array, LawError, positive_columns


class BestSetting(NamedTuple):
    """The best value of the setting at one scale, the loss there, and how the loss rises around it.

    `cost_of_doubling`: relative rise of the loss when the setting is doubled or halved.
    """

    scale: float
    setting: float
    loss: float
    cost_of_doubling: float


@dataclass(frozen=True)
class SettingLaw:
    """setting* = coefficient x scale^exponent (`law`), through the inner minima `optima`."""

    optima: tuple[BestSetting, ...]
    law: PowerLawFit
    warnings: tuple[str, ...]

    @property
    def coefficient(self) -> float:
        """The best setting at scale 1."""
        return self.law.coefficient

    @property
    def exponent(self) -> float:
        """Its exponent in the scale."""
        return self.law.exponent

    def value(self, scale: float) -> float:
        """The best setting at `scale`."""
        return float(self.law.law.value(scale))


def fit_setting_law(
    scale: ArrayLike, setting: ArrayLike, loss: ArrayLike, *, name: str = "learning rate", level: float = 0.9
) -> SettingLaw:
    """Fits the best `setting` (learning rate, batch in tokens) as a power law of `scale` (parameters, width, tokens).

    Columns (n,), one run each; runs of one scale form a curve. Scales with fewer than three values, or whose best
    lies at an edge, are left out and named. Raises `LawError` where fewer than two scales remain.
    """
    scales, settings, losses = positive_columns(scale=scale, setting=setting, loss=loss)
    optima, warnings = [], []
    for at in np.unique(scales):
        rows = scales == at
        if len(np.unique(settings[rows])) < 3:
            warnings.append(f"Size {at:.3g} has fewer than three values of the {name} and is left out: add values.")
            continue
        # Far from the best the loss is no parabola (too high a rate diverges): the best and what is around it count.
        near = _around_best(settings[rows], losses[rows])
        minimum = curve_minimum(np.log(settings[rows])[near], np.log(losses[rows])[near])
        if minimum.edge:
            warnings.append(
                f"Size {at:.3g} is left out: "
                f"its loss still falls at the {minimum.edge} {name}, {np.exp(minimum.x):.3g}. Add values beyond it."
            )
            continue
        cost = float(np.expm1(0.5 * minimum.curvature * np.log(2) ** 2))
        optima.append(BestSetting(float(at), float(np.exp(minimum.x)), float(np.exp(minimum.y)), cost))
    if len(optima) < 2:
        raise LawError(
            f"Fewer than two sizes have a best {name} inside of what was tried: there is no line to fit.",
            " ".join(warnings) + " Widen the sweep.",
        )
    law = fit_power_law([o.scale for o in optima], [o.setting for o in optima], level=level)
    return SettingLaw(tuple(optima), law, (*warnings, *law.warnings))


def _around_best(settings: Array, losses: Array) -> NDArray[np.intp]:
    """Indices of the best setting and up to two distinct ones on each side."""
    distinct = np.unique(settings)
    means = np.array([losses[settings == value].mean() for value in distinct])
    best = int(np.argmin(means))
    nearest = distinct[max(0, best - 2) : best + 3]
    if len(nearest) < 3:
        nearest = distinct[:3] if best < 2 else distinct[-3:]
    return np.flatnonzero(np.isin(settings, nearest))
