"""What repeated tokens are worth: the law of data-constrained training (Muennighoff et al. 2023).

The first pass over U tokens counts in full, each further one less: R repetitions of them are worth

    D' = U + U r (1 - exp(-R / r)),  R = D / U - 1                                  (their equation 5)

fresh tokens, so that no number of epochs is worth more than (1 + r) U. Parameters beyond what U tokens can use
saturate alike. The loss is the additive surface at N' and D'.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize_scalar

from maquette.scaling.laws.fit import leverage
from maquette.scaling.laws.gauss_newton import minimise
from maquette.scaling.laws.runs import Array, LawError, positive_columns
from maquette.scaling.laws.surface import (
    FLOPS_PER_PARAMETER_AND_TOKEN,
    INFERENCE_FLOPS_PER_PARAMETER_AND_TOKEN,
    Allocation,
    LossSurface,
)
from maquette.statistics import Interval, percentile_interval

TOKEN_DECAY = 15.387756
"""r for tokens (Muennighoff et al. 2023, appendix A): four epochs cost nearly nothing, beyond sixteen gain little."""

PARAMS_DECAY = 5.309743
"""r for excess parameters, the same source."""


def effective(amount: ArrayLike, unique: ArrayLike, decay: float) -> Array:
    """How much `amount` is worth when only `unique` of it is new, in the same unit; `decay` is r above."""
    amount, unique = np.asarray(amount, float), np.asarray(unique, float)
    repeats = np.maximum(amount / unique - 1, 0)
    return np.where(amount <= unique, amount, unique * (1 - decay * np.expm1(-repeats / decay)))


@dataclass(frozen=True)
class RepetitionLaw:
    """A surface for fresh data, and how fast repetition wears out."""

    surface: LossSurface
    token_decay: float = TOKEN_DECAY
    params_decay: float = PARAMS_DECAY

    def loss(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike) -> Array:
        """Loss, in nats per token, of N parameters on D `tokens` of which `unique_tokens` are distinct."""
        useful = self.surface.params_for(np.minimum(tokens, unique_tokens))
        return np.asarray(
            self.surface.loss(
                effective(params, useful, self.params_decay), effective(tokens, unique_tokens, self.token_decay)
            )
        )

    def optimal(self, compute: float, unique_tokens: float) -> Allocation:
        """N and D of least loss with 6 N D = `compute` when there are `unique_tokens` and no more.

        With enough data it is the surface's own optimum; with less, part of the compute goes into epochs.
        """
        free = self.surface.optimal(compute)
        if free.tokens <= unique_tokens:
            return free
        product = compute / FLOPS_PER_PARAMETER_AND_TOKEN
        centre = np.log(free.params)

        def loss(log_params: float) -> float:
            params = np.exp(log_params)
            return float(self.loss(params, product / params, unique_tokens))

        solution = minimize_scalar(loss, bounds=(centre - 7, centre + 7), method="bounded", options={"xatol": 1e-10})
        params = float(np.exp(solution.x))
        return Allocation(params, product / params)

    def optimal_for_serving(self, target_loss: float, tokens_served: float, unique_tokens: float) -> Allocation:
        """N and D of loss `target_loss` with the least training and serving, 6 N D + 2 N x `tokens_served`, when there
        are `unique_tokens` and no more.

        With enough data it is the surface's own; with less, the smaller model would have to repeat so much that a
        somewhat larger one is cheaper. Raises `LawError` where no number of epochs reaches the loss.
        """
        free = self.surface.optimal_for_serving(target_loss, tokens_served)
        if free.tokens <= unique_tokens:
            return free

        def cost(log_params: float) -> float:
            params = float(np.exp(log_params))
            tokens = self._tokens_for(target_loss, params, unique_tokens)
            return float(
                np.log(params)
                + np.log(
                    FLOPS_PER_PARAMETER_AND_TOKEN * tokens + INFERENCE_FLOPS_PER_PARAMETER_AND_TOKEN * tokens_served
                )
            )

        grid = np.log(free.params) + np.linspace(-1, 9, 201)
        costs = [cost(value) for value in grid]
        best = int(np.argmin(costs))
        if not np.isfinite(costs[best]):
            raise LawError(
                f"{unique_tokens:.3g} distinct tokens reach no loss of {target_loss:g}, however often they are read.",
                "Ask for a higher loss, or get more data.",
            )
        bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
        solution = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-9})
        at = solution.x if solution.fun <= costs[best] else grid[best]
        params = float(np.exp(at))
        return Allocation(params, self._tokens_for(target_loss, params, unique_tokens))

    def _tokens_for(self, target_loss: float, params: float, unique_tokens: float) -> float:
        """The least tokens, repeated ones included, by which N parameters reach the loss; infinite where none do."""

        def above(log_tokens: float) -> float:
            return float(self.loss(params, np.exp(log_tokens), unique_tokens)) - target_loss

        low, high = np.log(unique_tokens) - 20, np.log(unique_tokens) + np.log1p(30 * self.token_decay)
        if above(high) > 0:
            return np.inf
        return float(np.exp(low if above(low) <= 0 else brentq(above, low, high, xtol=1e-12)))


@dataclass(frozen=True)
class RepetitionFit:
    """A fitted law with the interval of its token decay; `residuals` (n,) of log loss."""

    law: RepetitionLaw
    interval: Interval
    residuals: Array
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Repeated:
    """Log loss over ln r for tokens, all else given. The one coordinate is ln r."""

    law: RepetitionLaw
    params: Array
    tokens: Array
    unique: Array

    @property
    def lower(self) -> Array:
        return np.array([np.log(1e-2)])

    @property
    def upper(self) -> Array:
        return np.array([np.log(1e4)])

    def predict(self, theta: Array) -> tuple[Array, Array]:
        decay = np.exp(theta)
        repeats = np.maximum(self.tokens / self.unique - 1, 0)
        worn = np.exp(-repeats / decay)
        worth = np.where(repeats > 0, self.unique * (1 + decay * (1 - worn)), self.tokens)
        surface = self.law.surface
        useful = effective(self.params, surface.params_for(np.minimum(self.tokens, self.unique)), self.law.params_decay)
        loss = surface.loss(useful, worth)
        by_worth = -surface.beta * surface.B * worth ** (-surface.beta - 1)
        by_decay = self.unique * (1 - worn - worn * repeats / decay) * decay
        return np.log(loss), (by_worth * by_decay / loss)[:, None, :]


def fit_repetition(
    params: ArrayLike,
    tokens: ArrayLike,
    unique_tokens: ArrayLike,
    loss: ArrayLike,
    surface: LossSurface,
    *,
    params_decay: float = PARAMS_DECAY,
    bootstrap: int = 1000,
    seed: int = 0,
    level: float = 0.9,
) -> RepetitionFit:
    """Fits the token decay r to runs (n,) that repeat their data, on an additive `surface` fitted to runs that do not.

    Raises `LawError` where no run repeats anything, or the surface is not additive.
    """
    if surface.gamma != 1:
        raise LawError("The repetition law rests on an additive surface (gamma = 1).")
    sizes, token_counts, unique, losses = positive_columns(
        params=params, tokens=tokens, unique_tokens=unique_tokens, loss=loss
    )
    if not np.any(token_counts > unique * 1.01):
        raise LawError("No run repeats its data: tokens are at most unique_tokens in all.", "Train some for epochs.")
    model = _Repeated(RepetitionLaw(surface, params_decay=params_decay), sizes, token_counts, unique)
    target = np.log(losses)
    minima = minimise(model, np.log(np.geomspace(0.1, 1e3, 9))[:, None], target)
    theta = minima.theta[np.argmin(minima.objective)][None]
    prediction, jacobian = model.predict(theta)
    residuals = target - prediction[0]
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(bootstrap, len(losses)))
    resampled = prediction[0] + signs * residuals / (1 - leverage(jacobian[0]))
    samples = minimise(model, np.repeat(theta, bootstrap, axis=0), resampled, tolerance=1e-8).theta[:, 0]
    interval = percentile_interval(np.exp(samples), level, degrees_of_freedom=len(losses) - 1)
    decay = float(np.exp(theta[0, 0]))
    warnings = []
    if not model.lower[0] < theta[0, 0] < model.upper[0]:
        warnings.append("The decay is not determined by these runs. Add runs of more epochs.")
    most = float((token_counts / unique).max())
    if most - 1 < decay / 3:
        warnings.append(f"At most {most:.1f} epochs were run: too few to see repetition wear out.")
    return RepetitionFit(replace(model.law, token_decay=decay), interval, residuals, tuple(warnings))
