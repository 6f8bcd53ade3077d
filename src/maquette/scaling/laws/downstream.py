"""What a run will score on questions: bits per byte of the right answer, and accuracy, each with its interval.

The likelihood of the right answer falls as a law of its own in N and D, as the loss does: the same predictor is fitted
to its bits per byte. Accuracy follows it,

    accuracy = chance + (1 - chance) exp(-a b^k),    b the bits per byte,

which along the best runs is the power law of log accuracy of Krajewski et al. 2025 ("Revisiting the Scaling Properties
of Downstream Metrics in Large Language Model Training", arXiv 2512.08894), counted from guessing. Beside it stand the
two steps through the loss (Gadre et al. 2024; Bhagia et al. 2024): ln b a straight line in ln L, accuracy a sigmoid of
L, at the loss that is predicted.

So many questions show a difference of so much and no less (`smallest_effect`). A task is noise at a size where the
model is predicted to be no more than that above guessing, or its bits per byte no more than that below the best run's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.stats import norm, t

from maquette.scaling.laws.forecast import FREEDOM, Forecast
from maquette.scaling.laws.loss_to_accuracy import accuracy_law
from maquette.scaling.laws.predictor import Predictor, fit_predictor
from maquette.scaling.laws.runs import Array, LawError, positive_columns

FEWEST = 5
"""Runs of a task's laws."""

POWER = 0.8

PRIOR_EXPONENT = (1.0, 1.0)
"""Mean and deviation of k: log accuracy falls about as the bits per byte do."""

OF_QUESTIONS = 4.0
"""Runs as many that the scatter which the number of questions leaves counts for, beside the runs' own."""

Range = tuple[float, float]


def smallest_effect(
    questions: int, accuracy: float, *, models: int = 1, level: float = 0.9, power: float = POWER
) -> float:
    """The smallest difference in accuracy that so many questions show at `level` with `power`: of one model from a
    known number (`models=1`), or of two models asked each its own questions (2). Models that answer the same ones
    differ by less chance, so for them it is an upper bound."""
    quantiles = norm.ppf((1 + level) / 2) + norm.ppf(power)
    return float(quantiles * np.sqrt(models * accuracy * (1 - accuracy) / questions))


@dataclass(frozen=True)
class ExpectedScore:
    """A value and its intervals by level."""

    value: float
    intervals: dict[float, Range]

    def contains(self, observed: float, level: float = 0.9) -> bool:
        low, high = self.intervals[level]
        return low <= observed <= high


@dataclass(frozen=True)
class TaskForecast:
    """Of one run: `bits_per_byte` of the right answer and `accuracy`, by the direct laws; `two_step_bits`,
    `two_step_accuracy`: through the loss. `effect`: the smallest difference from guessing that the questions show,
    `bits_effect` the smallest relative difference in bits per byte that two runs show; `gain`: by how much the bits per
    byte are predicted to fall from the best run, relatively. `accuracy_is_noise`, `bits_are_noise`: less than that is
    expected."""

    bits_per_byte: ExpectedScore
    accuracy: ExpectedScore
    two_step_bits: ExpectedScore
    two_step_accuracy: ExpectedScore
    chance: float
    effect: float
    gain: float
    bits_effect: float

    @property
    def accuracy_is_noise(self) -> bool:
        return self.accuracy.value - self.chance < self.effect

    @property
    def bits_are_noise(self) -> bool:
        return self.gain < self.bits_effect


@dataclass(frozen=True)
class TaskLaw:
    """The laws of one task over runs. `likelihood`: of the bits per byte; `log_a`, `exponent` and `covariance` (2, 2):
    of accuracy; `scatter` of an accuracy about it. `line`: ln b over ln L, slope and intercept, with `line_scatter`.
    The runs' columns: `loss`, `bits`, `accuracy`."""

    likelihood: Predictor
    chance: float
    questions: int
    log_a: float
    exponent: float
    covariance: Array
    scatter: float
    line: Array
    line_scatter: float
    loss: Array
    bits: Array
    accuracy: Array

    def accuracy_at(self, bits: ArrayLike) -> Array:
        """The accuracy that goes with bits per byte."""
        return _accuracy(np.array([self.log_a, self.exponent]), np.log(np.asarray(bits, float)), self.chance)

    @property
    def bits_scatter(self) -> float:
        """Deviation of ln b of the runs about its law."""
        runs = self.likelihood.runs
        law = self.likelihood.surface.extrapolate(runs.params, runs.tokens, runs.compute)
        return float(np.std(np.log(runs.loss) - law.log_loss))

    def predict(self, params: float, tokens: float, compute: float, loss: Forecast) -> TaskForecast:
        """What is expected of a run whose loss is expected to be `loss` (of one run, with its levels)."""
        levels = tuple(loss.intervals)
        bits = self.likelihood.predict(params, tokens, compute, levels)
        quantile = {level: float(t.ppf((1 + level) / 2, FREEDOM)) for level in levels}
        theta = np.array([self.log_a, self.exponent])
        gradient = _gradient(theta, np.log(bits.loss), self.chance)
        own = {}
        for level, (low, high) in bits.intervals.items():
            deviation = np.log(high / low) / 2 / quantile[level]
            spread = gradient[:2] @ self.covariance @ gradient[:2] + (gradient[2] * deviation) ** 2 + self.scatter**2
            own[level] = quantile[level] * float(np.sqrt(spread))
        middle = float(self.accuracy_at(bits.loss))
        best = float(self.bits[np.argmin(self.loss)])
        return TaskForecast(
            ExpectedScore(float(bits.loss), {level: _plain(ends) for level, ends in bits.intervals.items()}),
            ExpectedScore(middle, {level: _share(middle - half, middle + half) for level, half in own.items()}),
            self._bits_by_loss(loss, quantile),
            self._accuracy_by_loss(loss, quantile),
            self.chance,
            smallest_effect(self.questions, self.chance),
            float(np.log(best / bits.loss)),
            float((norm.ppf(0.95) + norm.ppf(POWER)) * np.sqrt(2) * self.bits_scatter),
        )

    def _bits_by_loss(self, loss: Forecast, quantile: dict[float, float]) -> ExpectedScore:
        slope, intercept = self.line

        def at(value: Any) -> float:
            return float(np.exp(slope * np.log(value) + intercept))

        ends = {}
        for level, (low, high) in loss.intervals.items():
            of_loss, of_line = abs(slope) * np.log(high / low) / 2, quantile[level] * self.line_scatter
            half = float(np.hypot(of_loss, of_line))
            ends[level] = at(loss.loss) * float(np.exp(-half)), at(loss.loss) * float(np.exp(half))
        return ExpectedScore(at(loss.loss), ends)

    def _accuracy_by_loss(self, loss: Forecast, quantile: dict[float, float]) -> ExpectedScore:
        law, noise = accuracy_law(self.loss, self.accuracy, self.chance)
        middle, ends = float(law.accuracy(loss.loss)), {}
        for level, (low, high) in loss.intervals.items():
            of_loss = float(law.accuracy(low) - law.accuracy(high)) / 2
            half = float(np.hypot(of_loss, quantile[level] * noise))
            ends[level] = _share(middle - half, middle + half)
        return ExpectedScore(middle, ends)


def fit_task(
    params: ArrayLike,
    tokens: ArrayLike,
    compute: ArrayLike,
    loss: ArrayLike,
    bits_per_byte: ArrayLike,
    accuracy: ArrayLike,
    *,
    chance: float,
    questions: int,
    budgets: ArrayLike | None = None,
    seeds: ArrayLike | None = None,
) -> TaskLaw:
    """The laws of a task from runs, columns (n,): `loss` in nats a token, `bits_per_byte` of the right answer,
    `accuracy` over so many `questions` of which guessing answers a share `chance`. Raises `LawError` for bad columns
    and for fewer than five runs."""
    losses, bits = positive_columns(loss=loss, bits_per_byte=bits_per_byte)
    right = np.asarray(accuracy, float)
    if right.shape != losses.shape or np.any(~np.isfinite(right) | (right < 0) | (right > 1)):
        raise LawError("accuracy must hold a number between 0 and 1 for each run.")
    if len(losses) < FEWEST:
        raise LawError(f"{len(losses)} evaluated runs are too few for a task's laws.", f"Evaluate at least {FEWEST}.")
    if not 0 <= chance < 1 or questions < 1:
        raise LawError(f"chance={chance} of {questions} questions is not the accuracy of guessing.")
    likelihood = fit_predictor(params, tokens, bits, compute, budgets=budgets, seeds=seeds)
    of_questions = np.sqrt(max(right.mean() * (1 - right.mean()), 1e-4) / questions)
    theta, covariance, scatter = _fit_accuracy(np.log(bits), right, chance, of_questions)
    line = np.polyfit(np.log(losses), np.log(bits), 1)
    off = np.log(bits) - np.polyval(line, np.log(losses))
    return TaskLaw(
        likelihood, chance, questions, float(theta[0]), float(theta[1]), covariance, scatter, line,
        float(np.sqrt(np.sum(off**2) / (len(off) - 2))), losses, bits, right,
    )  # fmt: skip


def _fit_accuracy(log_bits: Array, right: Array, chance: float, of_questions: float) -> tuple[Array, Array, float]:
    """ln a and k by least squares with a prior on k, their covariance, and the scatter about the law."""
    mean, deviation = PRIOR_EXPONENT

    def residuals(theta: Array) -> Array:
        off = (_accuracy(theta, log_bits, chance) - right) / of_questions
        return np.append(off, (theta[1] - mean) / deviation)

    begins = [np.array([np.log(start) - mean * log_bits.mean(), mean]) for start in (0.3, 1.0, 3.0)]
    bounds = [-20.0, 0.0], [20.0, 10.0]
    fit = min((least_squares(residuals, begin, bounds=bounds) for begin in begins), key=lambda one: float(one.cost))
    off = _accuracy(fit.x, log_bits, chance) - right
    freedom = OF_QUESTIONS + max(0, len(right) - 2)
    scatter = float(np.sqrt((OF_QUESTIONS * of_questions**2 + np.sum(off**2)) / freedom))
    jacobian = np.asarray(fit.jac)
    return fit.x, np.linalg.pinv(jacobian.T @ jacobian) * (scatter / of_questions) ** 2, scatter


def _accuracy(theta: Array, log_bits: Any, chance: float) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(chance + (1 - chance) * np.exp(-np.exp(theta[0] + theta[1] * log_bits)))


def _gradient(theta: Array, log_bits: float, chance: float) -> Array:
    """Of the accuracy in ln a, k and ln b."""
    hazard = np.exp(theta[0] + theta[1] * log_bits)
    inner = -(1 - chance) * np.exp(-hazard) * hazard
    return np.array([inner, inner * log_bits, inner * theta[1]])


def _share(low: float, high: float) -> Range:
    return max(0.0, low), min(1.0, high)


def _plain(ends: tuple[Any, Any]) -> Range:
    return float(ends[0]), float(ends[1])
