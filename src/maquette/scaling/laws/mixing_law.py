"""Weights of domains by a fitted mixing law.

The law (Ye et al. 2024, equation 1) says what a domain's loss is under mixture weights r (sum 1):
L_i(r) = c_i + k_i exp(sum_j t_ij r_j).
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.scaling.errors import LawError

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class MixingLaw:
    """`floor` (T,), `scale` (T,), `exponents` (T, domains), of T target domains; `residuals` (runs, T) in nats."""

    floor: Floats
    scale: Floats
    exponents: Floats
    residuals: Floats

    def losses(self, weights: ArrayLike) -> Floats:
        """The loss of each target, `(..., T)`, under weights `(..., domains)`."""
        found: Floats = self.floor + self.scale * np.exp(np.asarray(weights, np.float64) @ self.exponents.T)
        return found

    def optimum(self, targets: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Floats:
        """The weights within bounds (domains,) that minimise the mean loss weighted by `targets` (T,).

        Each term is convex in the weights, so there is one minimum. Raises `LawError` where the bounds have no mixture.
        """
        from scipy.optimize import minimize

        low, high, share = (np.asarray(one, np.float64) for one in (lower, upper, targets))
        if low.sum() > 1 or high.sum() < 1 or (low > high).any():
            raise LawError("The bounds allow no mixture: lower ones may sum to 1 at most, upper ones to 1 at least.")
        start = low + (high - low) * (1 - low.sum()) / max((high - low).sum(), 1e-12)

        def value(weights: Floats) -> float:
            return float(share @ self.losses(weights))

        def slope(weights: Floats) -> Floats:
            found: Floats = (share * self.scale * np.exp(self.exponents @ weights)) @ self.exponents
            return found

        simplex: Any = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
        found = minimize(
            value, start, jac=slope, bounds=list(zip(low, high, strict=True)), constraints=[simplex], method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        weights: Floats = np.clip(found.x, low, high)
        return weights / weights.sum()


def fit_mixing_law(weights: ArrayLike, losses: ArrayLike, *, starts: int = 16, seed: int = 0) -> MixingLaw:
    """Least squares of the law to runs' weights (runs, domains) and losses (runs, T), from several starts.

    Raises `LawError` where there are fewer runs than the law has numbers for each target.
    """
    from scipy.optimize import least_squares

    mixtures, measured = np.asarray(weights, np.float64), np.asarray(losses, np.float64)
    runs, domains = mixtures.shape
    if runs < domains + 1:
        raise LawError(f"A mixing law of {domains} domains needs at least {domains + 1} runs; there are {runs}.")
    numbers = np.random.default_rng(seed)
    floors, scales, rows = [], [], []
    for target in measured.T:
        # The scale is folded into the exponents (weights sum to 1), so that domains + 1 numbers are fitted.
        def residual(x: Floats, target: Floats = target) -> Floats:
            found: Floats = x[0] + np.exp(np.clip(mixtures @ x[1:], -50, 50)) - target
            return found

        best = None
        for _ in range(starts):
            floor = target.min() * numbers.uniform(0, 0.99)
            slopes = np.linalg.lstsq(mixtures, np.log(target - floor), rcond=None)[0]
            found = least_squares(residual, [floor, *slopes], x_scale="jac", xtol=1e-12, ftol=1e-12)
            best = found if best is None or found.cost < best.cost else best
        assert best is not None
        shift = float(best.x[1:].mean())
        floors.append(best.x[0])
        scales.append(np.exp(shift))
        rows.append(best.x[1:] - shift)
    law = MixingLaw(np.array(floors), np.array(scales), np.array(rows), np.zeros_like(measured))
    return dataclasses.replace(law, residuals=measured - law.losses(mixtures))
