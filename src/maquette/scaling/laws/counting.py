"""Kaplan against Chinchilla: what counting parameters differently does to an exponent.

Kaplan et al. 2020 count N without the vocabulary matrices and C = 6 N D with that N, and find N* ~ C^0.73; Hoffmann
et al. 2022 count all, and find 0.50. In small models the vocabulary is most of the parameters, so the part that is
counted grows faster than the whole. One surface, read in both conventions over the sizes that Kaplan et al. trained,
shows how much of the disagreement is bookkeeping (Pearce and Song 2024, "Reconciling Kaplan and Chinchilla Scaling
Laws"; the rest is warm-up, decay and batch: Porian et al. 2024).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from maquette.scaling.laws.power_law import PowerLaw, fit_power_law
from maquette.scaling.laws.runs import Array, LawError, positive_column
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN, LossSurface

KAPLAN_EXPONENT = 0.73
"""Kaplan et al. 2020, equation 1.8: N* ~ C_min^0.73."""

KAPLAN_SIZES = (768.0, 1.5e9)
"""Non-embedding parameters of the smallest and the largest model of Kaplan et al. 2020 (section 2)."""

CHINCHILLA_VOCABULARY = PowerLaw(47_491.0, 1 / 3)
"""Vocabulary parameters over the others in Hoffmann's suite (Pearce and Song 2024): width grows as N^(1/3)."""


@dataclass(frozen=True)
class ConventionShift:
    """One law in two conventions. `core_exponent`: of the core parameters N in 6 N D; `total_exponent`: of all.

    `explained`: the share of the distance from `total_exponent` to Kaplan's 0.73 that counting alone makes up.
    `compute`, `params` (m,): the line in Kaplan's convention.
    """

    core_exponent: float
    total_exponent: float
    explained: float
    compute: Array
    params: Array


def vocabulary_law(core: ArrayLike, vocabulary: ArrayLike) -> PowerLaw:
    """Vocabulary parameters as a power law of the core's, from a family's own sizes (n,)."""
    return fit_power_law(core, vocabulary).law


def kaplan_convention(
    surface: LossSurface,
    *,
    vocabulary: PowerLaw = CHINCHILLA_VOCABULARY,
    sizes: tuple[float, float] = KAPLAN_SIZES,
    budgets: int = 40,
) -> ConventionShift:
    """Reads `surface` (of total parameters) as someone would who counts the core only.

    `sizes`: the least and greatest best core size that they see; the compute is chosen to match. At each compute
    6 N D of the core the best core size is found on the surface, and a line is put through all of them. Raises
    `LawError` where no compute has these as its best sizes, as where the loss hardly falls with tokens.
    """
    with np.errstate(over="ignore", divide="ignore"):
        low, high = (_compute_of_core(surface, vocabulary, size) for size in positive_column("sizes", sizes))
    if not 0 < low < high < np.inf:
        raise LawError("On this surface no compute has core sizes like these as its best.")
    compute = np.geomspace(low, high, budgets)
    params = np.array([_best_core(surface, vocabulary, budget) for budget in compute])
    exponent = fit_power_law(compute, params).exponent
    total = surface.exponent
    return ConventionShift(exponent, total, (exponent - total) / (KAPLAN_EXPONENT - total), compute, params)


def _best_core(surface: LossSurface, vocabulary: PowerLaw, compute: float) -> float:
    """The core size of least loss among those with 6 N_core D = `compute`."""

    def loss(log_core: float) -> float:
        core = np.exp(log_core)
        tokens = compute / (FLOPS_PER_PARAMETER_AND_TOKEN * core)
        return float(surface.loss(core + float(vocabulary.value(core)), tokens))

    centre = np.log(surface.optimal(compute).params)
    solution = minimize_scalar(loss, bounds=(centre - 15, centre + 5), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(solution.x))


def _compute_of_core(surface: LossSurface, vocabulary: PowerLaw, core: float) -> float:
    """The core compute at which `core` is the best core size: where the loss is stationary in N along N D = const."""
    rest = float(vocabulary.value(core))
    total = core + rest
    # d ln(total) / d ln(core), by which the model term falls as the core grows
    growth = (core + vocabulary.exponent * rest) / total
    balance = growth * surface.alpha * surface.A * total**-surface.alpha / (surface.beta * surface.B)
    return FLOPS_PER_PARAMETER_AND_TOKEN * core * balance ** (-1 / surface.beta)
