"""Power laws: a line in log-log, with or without a floor.

y = floor + coefficient * x^exponent. Without the floor it is ordinary least squares on logarithms, and its intervals
are Student's, exact. With it (Kaplan et al. 2020 and Henighan et al. 2020 call it the irreducible loss) the same
relative errors are minimised by Gauss-Newton, and the intervals come from a bootstrap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from maquette.scaling.laws.fit import Prediction, leverage
from maquette.scaling.laws.forms import non_negative_least_squares
from maquette.scaling.laws.gauss_newton import minimise
from maquette.scaling.laws.runs import Array, LawError, positive_columns
from maquette.statistics import Interval, percentile_interval, student_interval

_SLOPES = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5])


@dataclass(frozen=True)
class PowerLaw:
    """floor + coefficient * x^exponent."""

    coefficient: float
    exponent: float
    floor: float = 0.0

    def value(self, x: ArrayLike) -> Array:
        """y at `x`, of its shape."""
        return np.asarray(self.floor + self.coefficient * np.asarray(x, float) ** self.exponent)


@dataclass(frozen=True)
class PowerLawFit:
    """A fitted power law. `interval` by parameter; `residuals` (n,): log of y over fit; `noise`: their deviation.

    `samples` (resamples, 3): coefficient, exponent and floor of each resample, empty for the line without a floor,
    whose `covariance` (of log y at the centre of the points, and of the exponent) says all.
    """

    law: PowerLaw
    interval: Mapping[str, Interval]
    residuals: Array
    warnings: tuple[str, ...]
    noise: float
    degrees_of_freedom: int
    level: float
    log_centre: float
    covariance: Array
    samples: Array

    @property
    def coefficient(self) -> float:
        """y at x = 1, less the floor."""
        return self.law.coefficient

    @property
    def exponent(self) -> float:
        """Slope in log-log."""
        return self.law.exponent

    @property
    def floor(self) -> float:
        """What y tends to as a falling law goes on."""
        return self.law.floor

    def standard_error(self, x: float) -> float:
        """Of the law's log y at `x`."""
        if len(self.samples):
            coefficient, exponent, floor = self.samples.T
            return float(np.log(floor + coefficient * float(x) ** exponent).std(ddof=1))
        direction = np.array([1.0, np.log(x) - self.log_centre])
        return float(np.sqrt(direction @ self.covariance @ direction))

    def predict(self, x: float, level: float | None = None) -> Prediction:
        """y at `x`, and the interval in which another observation there is expected."""
        value = float(self.law.value(x))
        error = float(np.hypot(self.standard_error(x), self.noise))
        low, high = student_interval(np.log(value), error, self.degrees_of_freedom, level or self.level)
        return Prediction(value, Interval(float(np.exp(low)), float(np.exp(high))))


@dataclass(frozen=True)
class _Floored:
    """log(E + exp(a + k u)) over u = ln x less its mean. Coordinates: E, a, k."""

    u: Array

    @property
    def lower(self) -> Array:
        return np.array([0.0, -50.0, -20.0])

    @property
    def upper(self) -> Array:
        return np.array([np.inf, 50.0, 20.0])

    def predict(self, theta: Array) -> tuple[Array, Array]:
        floor, level, slope = (column[:, None] for column in theta.T)
        power = np.exp(level + slope * self.u)
        value = floor + power
        derivatives = [np.ones_like(power), power, power * self.u]
        return np.log(value), np.stack(derivatives, axis=1) / value[:, None, :]


def fit_power_law(
    x: ArrayLike, y: ArrayLike, floor: bool = False, *, bootstrap: int = 1000, seed: int = 0, level: float = 0.9
) -> PowerLawFit:
    """Fits y = coefficient * x^exponent, `x` and `y` (n,), or with `floor` y = floor + coefficient * x^exponent.

    `bootstrap` resamples give the intervals of the fit with a floor (each point's own residual with a random sign,
    scaled by its leverage: Wu 1986). Raises `LawError` for fewer points than parameters, one distinct x, or values
    that are not finite and above 0.
    """
    checked_x, checked_y = positive_columns(x=x, y=y)
    parameters = 3 if floor else 2
    if len(np.unique(checked_x)) < parameters:
        raise LawError(
            f"{len(np.unique(checked_x))} distinct x can't determine a power law with {parameters} parameters.",
            "Add points" + (", or fit it without a floor." if floor else "."),
        )
    centre = float(np.log(checked_x).mean())
    u = np.log(checked_x) - centre
    return (
        _fit_floored(u, checked_y, centre, bootstrap, seed, level)
        if floor
        else _fit_line(u, np.log(checked_y), centre, level)
    )


def _fit_line(u: Array, log_y: Array, centre: float, level: float) -> PowerLawFit:
    spread, freedom = float(u @ u), len(u) - 2
    slope = float(u @ log_y) / spread
    middle = float(log_y.mean())
    residuals = log_y - middle - slope * u
    noise = float(np.sqrt(residuals @ residuals / freedom)) if freedom else 0.0
    covariance = noise**2 * np.diag([1 / len(u), 1 / spread])
    intercept = middle - slope * centre
    low, high = student_interval(intercept, noise * np.sqrt(1 / len(u) + centre**2 / spread), freedom, level)
    # Two scattered points far from x = 1 leave the coefficient so open that its end is no double.
    with np.errstate(over="ignore"):
        ends = np.exp([low, high])
    interval = {
        "coefficient": Interval(float(ends[0]), float(ends[1])),
        "exponent": student_interval(slope, noise / np.sqrt(spread), freedom, level),
    }
    warnings = () if freedom else ("Two points: the line passes through both and has no interval.",)
    law = PowerLaw(float(np.exp(intercept)), slope)
    return PowerLawFit(law, interval, residuals, warnings, noise, freedom, level, centre, covariance, np.empty((0, 3)))


def _fit_floored(u: Array, y: Array, centre: float, bootstrap: int, seed: int, level: float) -> PowerLawFit:
    model, log_y, freedom = _Floored(u), np.log(y), len(u) - 3
    slopes = np.concatenate([-_SLOPES, _SLOPES])
    powers = np.exp(slopes[:, None] * u)
    target = np.broadcast_to(y, powers.shape)
    linear = non_negative_least_squares(np.stack([np.ones_like(powers), powers], axis=1), target, target**-2.0)
    starts = np.stack([linear[:, 0], np.log(np.maximum(linear[:, 1], 1e-21)), slopes], axis=1)
    minima = minimise(model, starts, log_y)
    theta = minima.theta[np.argmin(minima.objective)][None]
    prediction, jacobian = model.predict(theta)
    residuals = log_y - prediction[0]
    noise = float(np.sqrt(residuals @ residuals / max(freedom, 1)))

    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(bootstrap, len(u)))
    resampled = prediction[0] + signs * residuals / (1 - leverage(jacobian[0]))
    drawn = minimise(model, np.repeat(theta, bootstrap, axis=0), resampled, tolerance=1e-8).theta
    samples = np.stack([np.exp(drawn[:, 1] - drawn[:, 2] * centre), drawn[:, 2], drawn[:, 0]], axis=1)
    interval = {
        name: percentile_interval(column, level, degrees_of_freedom=freedom)
        for name, column in zip(("coefficient", "exponent", "floor"), samples.T, strict=True)
    }
    floor, middle, slope = (float(value) for value in theta[0])
    warnings = []
    if freedom == 0:
        warnings.append("Three points: the law passes through all of them and has no interval.")
    if floor == 0:
        warnings.append("The floor came out as 0: these points do not show one.")
    elif interval["floor"].low <= 0:
        warnings.append("The floor's interval reaches 0: these points do not show that there is one.")
    law = PowerLaw(float(np.exp(middle - slope * centre)), slope, floor)
    return PowerLawFit(
        law, interval, residuals, tuple(warnings), noise, freedom, level, centre, np.full((2, 2), np.nan), samples
    )
