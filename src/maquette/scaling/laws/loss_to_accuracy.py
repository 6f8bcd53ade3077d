"""From compute to accuracy in two steps: compute -> loss by a power law, loss -> accuracy by a sigmoid.

Accuracy on a task does not follow a power law (it begins at chance and ends at one), but the loss does, and accuracy
follows the loss: Gadre et al. 2024, "Language models scale reliably with over-training and on downstream tasks";
Llama 3 (Dubey et al. 2024), section 3.2.1; Bhagia et al. 2024, "Establishing Task Scaling Laws via Compute-Efficient
Model Ladders". With L the loss (or bits per byte) and c the accuracy of guessing,

    accuracy = c + (1 - c) top sigmoid((L0 - L) / width).

Intervals come from fitting both steps again to resampled runs, so what one step does not know reaches the other.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.special import expit, logit

from maquette.scaling.laws.power_law import PowerLawFit, fit_power_law
from maquette.scaling.laws.runs import Array, LawError, positive_columns
from maquette.statistics import Interval, percentile_interval

_FEWEST = 5


@dataclass(frozen=True)
class AccuracyLaw:
    """accuracy = chance + (1 - chance) top sigmoid((middle - loss) / width)."""

    chance: float
    top: float
    middle: float
    width: float

    def accuracy(self, loss: ArrayLike) -> Array:
        """At `loss`, of any shape."""
        sigmoid = expit((self.middle - np.asarray(loss, float)) / self.width)
        return np.asarray(self.chance + (1 - self.chance) * self.top * sigmoid)


@dataclass(frozen=True)
class AccuracyPrediction:
    """Accuracy and loss expected at a compute, with their intervals."""

    compute: float
    accuracy: float
    interval: Interval
    loss: float
    loss_interval: Interval


@dataclass(frozen=True)
class TwoStepFit:
    """Both steps, `noise` of an accuracy around its law, and the resamples behind the intervals: (coefficient,
    exponent, floor) of the loss and (top, middle, width) of the accuracy, (resamples, 6)."""

    loss: PowerLawFit
    law: AccuracyLaw
    noise: float
    samples: Array
    level: float
    warnings: tuple[str, ...] = ()

    def predict(self, compute: float, *, questions: int | None = None, seed: int = 0) -> AccuracyPrediction:
        """Accuracy of a run of `compute`, and the interval in which its measured accuracy is expected. The runs' own
        scatter about the law holds what their questions left to chance; with fewer `questions` more is left."""
        loss = float(self.loss.law.value(compute))
        accuracy = float(self.law.accuracy(loss))
        generator = np.random.default_rng(seed)
        coefficient, exponent, floor, top, middle, width = self.samples.T
        log_losses = np.log(floor + coefficient * float(compute) ** exponent)
        losses = np.exp(log_losses + generator.normal(0, self.loss.noise, len(log_losses)))
        chance = self.law.chance
        drawn = chance + (1 - chance) * top * expit((middle - losses) / width)
        spread = self.noise**2 if questions is None else max(self.noise**2, accuracy * (1 - accuracy) / questions)
        drawn = drawn + generator.normal(0, np.sqrt(spread), len(drawn))
        return AccuracyPrediction(
            float(compute), accuracy, percentile_interval(np.clip(drawn, 0, 1), self.level), loss,
            percentile_interval(losses, self.level),
        )  # fmt: skip


@dataclass(frozen=True)
class HeldOutAccuracy:
    """A held-out run: was its accuracy within what the smaller runs had predicted?"""

    prediction: AccuracyPrediction
    accuracy: float
    held: bool


def fit_loss_to_accuracy(
    compute: ArrayLike,
    loss: ArrayLike,
    accuracy: ArrayLike,
    *,
    chance: float,
    bootstrap: int = 500,
    level: float = 0.9,
    seed: int = 0,
) -> TwoStepFit:
    """Fits both steps to runs: `compute` (FLOPs), `loss` and `accuracy` in [0, 1], (n,) each.

    Raises `LawError` for fewer than five runs, accuracies out of range, or runs that all guess: then there is nothing
    to extrapolate from.
    """
    checked, losses = positive_columns(compute=compute, loss=loss)
    right = np.asarray(accuracy, float)
    if right.shape != checked.shape or np.any(~np.isfinite(right) | (right < 0) | (right > 1)):
        raise LawError("accuracy must hold a number between 0 and 1 for each run.")
    if len(checked) < _FEWEST:
        raise LawError(f"{len(checked)} runs are too few for two steps.", f"Give at least {_FEWEST}.")
    if not 0 <= chance < 1:
        raise LawError(f"chance={chance} is not the accuracy of guessing.", "Four options: 0.25.")
    first = fit_power_law(checked, losses, bootstrap=bootstrap)
    law, noise = accuracy_law(losses, right, chance)
    notes = list(first.warnings)
    if right.max() - chance < 3 * noise:
        notes.append(
            f"No run is clearly better than guessing ({right.max():.3f} against {chance:.3f}): the sigmoid's middle is "
            "a guess too."
        )
    generator = np.random.default_rng(seed)
    samples: list[tuple[float, ...]] = []
    while len(samples) < bootstrap:
        rows = generator.integers(0, len(checked), len(checked))
        if len(np.unique(checked[rows])) < 2:
            continue
        again = fit_power_law(checked[rows], losses[rows]).law
        other = _sigmoid(losses[rows], right[rows] + generator.normal(0, noise, len(rows)), chance, start=law)
        samples.append((again.coefficient, again.exponent, again.floor, other.top, other.middle, other.width))
    return TwoStepFit(first, law, noise, np.array(samples), level, tuple(notes))


def check_held_out(
    compute: ArrayLike, loss: ArrayLike, accuracy: ArrayLike, *, chance: float, held_out: int = 1, **options: Any
) -> list[HeldOutAccuracy]:
    """Fits all runs but the `held_out` of most compute, predicts these, and says whether they held."""
    order = np.argsort(np.asarray(compute, float), kind="stable")
    columns = [np.asarray(column, float)[order] for column in (compute, loss, accuracy)]
    if not 0 < held_out <= len(order) - _FEWEST:
        raise LawError(f"held_out={held_out} of {len(order)} runs leaves too few.", f"{_FEWEST} are needed to fit.")
    fit = fit_loss_to_accuracy(*(column[:-held_out] for column in columns), chance=chance, **options)
    verdicts = []
    for budget, _, observed in zip(*(column[-held_out:] for column in columns), strict=True):
        prediction = fit.predict(budget)
        verdicts.append(HeldOutAccuracy(prediction, float(observed), prediction.interval.contains(float(observed))))
    return verdicts


def accuracy_law(loss: Array, accuracy: Array, chance: float) -> tuple[AccuracyLaw, float]:
    """The second step alone: the sigmoid over runs (n,), and the noise of an accuracy around it."""
    law = _sigmoid(loss, accuracy, chance)
    residuals = accuracy - law.accuracy(loss)
    return law, float(np.sqrt(np.sum(residuals**2) / max(1, len(accuracy) - 3)))


def _sigmoid(loss: Array, accuracy: Array, chance: float, start: AccuracyLaw | None = None) -> AccuracyLaw:
    """Least squares over top, middle and width, in coordinates without bounds."""
    spread = float(np.ptp(loss)) or 1.0

    def law(theta: Array) -> AccuracyLaw:
        return AccuracyLaw(chance, float(expit(theta[0])), float(theta[1]), float(np.exp(np.clip(theta[2], -20, 20))))

    def residuals(theta: Array) -> Array:
        # A weak pull towards a top near one: accuracies far below it do not tell where it lies.
        return np.append(law(theta).accuracy(loss) - accuracy, 0.01 * (theta[0] - 3))

    if start is not None:
        begins = [(float(logit(min(start.top, 1 - 1e-9))), start.middle, float(np.log(start.width)))]
    else:
        begins = [
            (3.0, middle, np.log(spread * scale))
            for middle in (float(loss.min()) - spread, float(np.median(loss)), float(loss.min()))
            for scale in (0.1, 0.5)
        ]
    fits = [least_squares(residuals, begin, method="lm", max_nfev=400) for begin in begins]
    return law(min(fits, key=lambda fit: fit.cost).x)
