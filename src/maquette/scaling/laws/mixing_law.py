"""Weights of domains by a fitted mixing law: the loss of each target domain under mixture weights r (sum 1).

Exponential (Ye et al. 2024, equation 1): L_i(r) = c_i + k_i exp(sum_j t_ij r_j).
Transfer: L_i(r) = c_i + (sum_j u_ij r_j)^-b_i with u_ij >= 0, a power law in the data that count for the target, in
which a token of another domain is worth u_ij / u_ii of its own (Hernandez et al. 2021, "Scaling laws for transfer",
effective data). It rises without bound as a domain is left out, where the exponential stays finite.
"""

import abc
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.scaling.laws.runs import LawError

Floats = NDArray[np.float64]


class MixtureLaw(abc.ABC):
    """A loss of each of T targets that is convex in the weights of the domains."""

    form: str

    @abc.abstractmethod
    def losses(self, weights: ArrayLike) -> Floats:
        """The loss of each target, `(..., T)`, under weights `(..., domains)`."""

    @abc.abstractmethod
    def slopes(self, weights: Floats) -> Floats:
        """Its derivatives `(T, domains)` at one mixture `(domains,)`."""

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
            solution: Floats = share @ self.slopes(weights)
            return solution

        simplex: Any = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
        solution = minimize(
            value, start, jac=slope, bounds=list(zip(low, high, strict=True)), constraints=[simplex], method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        weights: Floats = np.clip(solution.x, low, high)
        return weights / weights.sum()


@dataclasses.dataclass(frozen=True)
class MixingLaw(MixtureLaw):
    """`floor` (T,), `scale` (T,), `exponents` (T, domains), of T target domains; `residuals` (runs, T) in nats."""

    floor: Floats
    scale: Floats
    exponents: Floats
    residuals: Floats
    form = "exponential"

    def losses(self, weights: ArrayLike) -> Floats:
        losses: Floats = self.floor + self.scale * np.exp(np.asarray(weights, np.float64) @ self.exponents.T)
        return losses

    def slopes(self, weights: Floats) -> Floats:
        slopes: Floats = (self.scale * np.exp(self.exponents @ weights))[:, None] * self.exponents
        return slopes


@dataclasses.dataclass(frozen=True)
class TransferLaw(MixtureLaw):
    """`floor` (T,), `worth` (T, domains), `power` (T,), of T target domains; `residuals` (runs, T) in nats."""

    floor: Floats
    worth: Floats
    power: Floats
    residuals: Floats
    form = "transfer"

    def losses(self, weights: ArrayLike) -> Floats:
        losses: Floats = self.floor + (np.asarray(weights, np.float64) @ self.worth.T + _TINY) ** -self.power
        return losses

    def slopes(self, weights: Floats) -> Floats:
        data = self.worth @ weights + _TINY
        slopes: Floats = (-self.power * data ** (-self.power - 1))[:, None] * self.worth
        return slopes


_TINY = 1e-12
_POWERS = (0.02, 3.0)
"""Exponents of data that a fit may find."""


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
            solution: Floats = x[0] + np.exp(np.clip(mixtures @ x[1:], -50, 50)) - target
            return solution

        def jacobian(x: Floats) -> Floats:
            above = np.exp(np.clip(mixtures @ x[1:], -50, 50))
            return np.column_stack([np.ones(runs), above[:, None] * mixtures])

        best = None
        for _ in range(starts):
            floor = target.min() * numbers.uniform(0, 0.99)
            slopes = np.linalg.lstsq(mixtures, np.log(target - floor), rcond=None)[0]
            solution = least_squares(residual, [floor, *slopes], jacobian, x_scale="jac", xtol=1e-12, ftol=1e-12)
            best = solution if best is None or solution.cost < best.cost else best
        assert best is not None
        shift = float(best.x[1:].mean())
        floors.append(best.x[0])
        scales.append(np.exp(shift))
        rows.append(best.x[1:] - shift)
    law = MixingLaw(np.array(floors), np.array(scales), np.array(rows), np.zeros_like(measured))
    return dataclasses.replace(law, residuals=measured - law.losses(mixtures))


def fit_transfer_law(weights: ArrayLike, losses: ArrayLike, *, starts: int = 6, seed: int = 0) -> TransferLaw:
    """Least squares of the transfer law to runs' weights (runs, domains) and losses (runs, domains): target i is
    domain i. Raises `LawError` where there are fewer runs than the law has numbers for each target."""
    from scipy.optimize import least_squares

    mixtures, measured = np.asarray(weights, np.float64), np.asarray(losses, np.float64)
    runs, domains = mixtures.shape
    if runs < domains + 2:
        raise LawError(f"A transfer law of {domains} domains needs at least {domains + 2} runs; there are {runs}.")
    numbers = np.random.default_rng(seed)
    floors, powers, worths = [], [], []
    for place, target in enumerate(measured.T):

        def residual(x: Floats, target: Floats = target) -> Floats:
            solution: Floats = x[0] + (mixtures @ np.exp(x[2:]) + _TINY) ** -np.exp(x[1]) - target
            return solution

        def jacobian(x: Floats) -> Floats:
            power, worth = np.exp(x[1]), np.exp(x[2:])
            data = mixtures @ worth + _TINY
            above = data**-power
            slopes = (-power * above / data)[:, None] * mixtures * worth
            return np.column_stack([np.ones(runs), -power * np.log(data) * above, slopes])

        low = np.array([0.0, np.log(_POWERS[0]), *[-14.0] * domains])
        high = np.array([target.min() - 1e-3, np.log(_POWERS[1]), *[30.0] * domains])
        best = None
        for _ in range(starts):
            floor, power = target.min() * numbers.uniform(0, 0.9), numbers.uniform(0.05, 0.5)
            own = -np.log(target.mean() - floor) / power  # log of the worth at which the law says the mean loss
            others = own + numbers.normal(-1.5, 0.5, domains)
            others[place] = own + 1.0
            start = np.clip([floor, np.log(power), *others], low + 1e-6, high - 1e-6)
            solution = least_squares(residual, start, jacobian, bounds=(low, high), x_scale="jac", max_nfev=300)
            best = solution if best is None or solution.cost < best.cost else best
        assert best is not None
        floors.append(best.x[0])
        powers.append(np.exp(best.x[1]))
        worths.append(np.exp(best.x[2:]))
    law = TransferLaw(np.array(floors), np.array(worths), np.array(powers), np.zeros_like(measured))
    return dataclasses.replace(law, residuals=measured - law.losses(mixtures))
