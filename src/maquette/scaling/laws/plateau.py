"""The surface that predictions are made with: a general law below the plateau of an untrained model, with priors.

    ln L = -1/m ln[ (E + P)^-m + H^-m ],   P = (A/N^alpha + B/D^beta)^gamma,   E >= 0

H is the unigram entropy of the text under its tokenizer, in nats a token: what a model pays that knows how frequent
each token is and nothing else. Near it a loss falls slowly at first and then faster, which a pure power law takes for a
bend. Where H is not known the surface is E + P, the general one of Kaplan et al. 2020 and Hoffmann et al. 2022. How
sharply the plateau gives way, m, is fitted with the rest, near 2.5: the way from token frequencies to words is a long
one. Over this project's own sweeps of 10,000 to 300,000 parameters 2 predicts 1.3% too low a loss at ten times their
compute and 8 predicts 2% too high a one; at a hundred times it is 3 and 8%, so an interval that took m for known would
be too narrow.

Seven parameters and runs over two decades of compute leave much open, and what is left open decides an extrapolation.
So the fit is a maximum a posteriori: published exponents and floors are the priors (`PRIORS`), which enter least
squares as pseudo-observations. Runs far from where the law is used count less: see `predictor.py`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from maquette.scaling.laws.forms import SurfaceModel
from maquette.scaling.laws.gauss_newton import minimise
from maquette.scaling.laws.runs import Array

FIRST_NOISE, LEAST_NOISE, GREATEST_NOISE = 0.006, 0.002, 0.03
"""Standard deviation of a run's log loss about the law: the first guess, and the range of the estimate."""

ROUNDS = 3
"""Fits, each after the first with the noise that the one before it left."""

_START_FLOORS = (0.15, 0.5, 0.8)

PRIORS = ((0.4, 0.3), (np.log(0.28), 0.4), (np.log(0.28), 0.4), (0.0, 0.3), (np.log(0.6), 0.8), (np.log(2.5), 0.4))
"""Mean and deviation of E / min L, ln(alpha gamma), ln(beta gamma), their difference, and ln gamma: what is spread over
published laws (Kaplan et al. 2020; Hoffmann et al. 2022; Besiroglu et al. 2024; Muennighoff et al. 2023). And of ln m:
2.5 was chosen with a first few sweeps of this project, .4 by the predictive score of six at 10 to 100 times theirs."""

GENERAL = 6
"""Coordinates of the general law, E to ln gamma; ln m is the last of the surface."""

_LEAST_SHARP, _SHARPEST = 1.2, 20.0


@dataclass(frozen=True)
class PlateauModel:
    """The surface over fixed runs in the coordinates of the general form (E, a, ln p, b, ln q, ln gamma) and ln m,
    followed by its six pseudo-observations, each divided by its prior's deviation."""

    general: SurfaceModel
    plateau: float
    least_loss: float

    @property
    def lower(self) -> Array:
        return np.append(self.general.lower, np.log(_LEAST_SHARP))

    @property
    def upper(self) -> Array:
        upper = np.append(self.general.upper, np.log(_SHARPEST))
        upper[0] = 0.999 * self.least_loss
        return upper

    def log_loss(self, theta: Array, at: SurfaceModel | None = None) -> tuple[Array, Array]:
        """ln L (batch, m) and its derivatives (batch, p, m), at the runs or `at` other points."""
        log_law, jacobian = (at or self.general).predict(theta[:, :GENERAL])
        if np.isinf(self.plateau):
            return log_law, np.concatenate([jacobian, np.zeros_like(log_law)[:, None, :]], axis=1)
        # -1/m ln(L^-m + H^-m): a softplus of ln L - ln H, whose derivative is the law's share, and by ln m the two
        # weighted by their shares, less the loss.
        log_plateau, sharpness = np.log(self.plateau), np.exp(theta[:, GENERAL:])
        above = sharpness * (log_law - log_plateau)
        share = 1 / (1 + np.exp(np.clip(above, -500, 500)))
        log_loss = log_law - np.logaddexp(0.0, above) / sharpness
        by_sharpness = share * log_law + (1 - share) * log_plateau - log_loss
        return log_loss, np.concatenate([jacobian * share[:, None, :], by_sharpness[:, None, :]], axis=1)

    def predict(self, theta: Array) -> tuple[Array, Array]:
        """`theta` (batch, 7) -> (batch, n + 6) and its derivatives (batch, 7, n + 6)."""
        prediction, jacobian = self.log_loss(theta)
        priors = theta @ self._prior_slopes
        slopes = np.broadcast_to(self._prior_slopes, (len(theta), *self._prior_slopes.shape))
        return np.concatenate([prediction, priors], axis=1), np.concatenate([jacobian, slopes], axis=2)

    def pseudo_observations(self) -> Array:
        """The priors' means over their deviations, (6,)."""
        return np.array([mean / deviation for mean, deviation in PRIORS])

    @cached_property
    def _prior_slopes(self) -> Array:
        """Each prior as a column (7, 6) of coefficients of the coordinates, over its deviation."""
        rows = np.zeros((len(PRIORS), GENERAL + 1))
        floor, _, slope_params, _, slope_tokens, gamma, sharpness = range(GENERAL + 1)
        rows[0, floor] = 1 / self.least_loss
        rows[1, slope_params] = rows[2, slope_tokens] = rows[4, gamma] = rows[5, sharpness] = 1.0
        rows[3, slope_params], rows[3, slope_tokens] = 1.0, -1.0
        return (rows / np.array([deviation for _, deviation in PRIORS])[:, None]).T


@dataclass(frozen=True)
class PlateauFit:
    """Fits of a batch of weightings. `theta` (batch, 7); `covariance` (batch, 7, 7): Laplace's; `noise` (batch,);
    `freedom` (batch,): weighted runs less the parameters that they, and not the priors, determine."""

    model: PlateauModel
    theta: Array
    covariance: Array
    noise: Array
    freedom: Array

    def log_loss(self, params: Array, tokens: Array, row: int) -> tuple[Array, Array]:
        """ln L (m,) by fit `row` and the standard deviation of its law there."""
        values, jacobian = self.model.log_loss(self.theta[row : row + 1], self.model.general.at(params, tokens))
        variance = np.einsum("pm,pq,qm->m", jacobian[0], self.covariance[row], jacobian[0])
        return values[0], np.sqrt(np.maximum(variance, 0.0))


def fit_plateau(
    params: Array, tokens: Array, loss: Array, weights: Array, plateau: float = np.inf, least_noise: float = LEAST_NOISE
) -> PlateauFit:
    """Fits the surface once for each row of `weights` (batch, n) to runs (n,); `plateau` is H, in nats.

    The noise is estimated from the weighted residuals, over the weighted runs less the parameters that these determine
    (the trace of the hat matrix; priors determine the rest).
    """
    general = SurfaceModel.over("general", params, tokens, logarithmic=True)
    model = PlateauModel(general, plateau, float(loss.min()))
    target = np.concatenate([np.log(loss), model.pseudo_observations()])
    batch, runs = weights.shape
    noise = np.full(batch, max(FIRST_NOISE, least_noise))
    starts = _starts(model, loss)
    theta = np.repeat(starts[None], batch, axis=0)
    for round_ in range(ROUNDS):
        count = theta.shape[1]
        observed = np.concatenate([weights / noise[:, None] ** 2, np.ones((batch, len(PRIORS)))], axis=1)
        minima = minimise(
            model, theta.reshape(batch * count, GENERAL + 1), target, np.repeat(observed, count, axis=0),
            iterations=60, tolerance=1e-7,
        )  # fmt: skip
        best = minima.objective.reshape(batch, count).argmin(axis=1)
        reached = minima.theta.reshape(batch, count, GENERAL + 1)[np.arange(batch), best]
        prediction, jacobian = model.predict(reached)
        precision = np.matmul(jacobian * observed[:, None, :], jacobian.transpose(0, 2, 1))
        covariance = np.linalg.inv(precision + 1e-12 * np.eye(GENERAL + 1))
        own = jacobian[:, :, :runs]
        determined = np.einsum("bpn,bpq,bqn,bn->b", own, covariance, own, observed[:, :runs])
        freedom = np.maximum(weights.sum(axis=1) - determined, 1.0)
        if round_ < ROUNDS - 1:
            squares = np.sum(weights * (target[:runs] - prediction[:, :runs]) ** 2, axis=1)
            noise = np.clip(np.sqrt(squares / freedom), least_noise, GREATEST_NOISE)
        theta = reached[:, None, :]
    return PlateauFit(model, reached, covariance, noise, freedom)


def _starts(model: PlateauModel, loss: Array) -> Array:
    """Where the search begins, (starts, 7): the priors, with three floors."""
    gamma, slope, sharpness = np.exp(PRIORS[4][0]), PRIORS[1][0], np.exp(PRIORS[5][0])
    middle = float(np.exp(np.log(loss).mean()))
    if middle < model.plateau:  # the law below the plateau that gives the middle loss
        middle = float((middle**-sharpness - model.plateau**-sharpness) ** (-1 / sharpness))
    floors = np.array(_START_FLOORS) * model.least_loss
    level = np.log(middle - floors) - gamma * np.log(2)
    ones = np.ones(len(floors))
    return np.stack(
        [floors, level, slope * ones, level, slope * ones, np.log(gamma) * ones, np.log(sharpness) * ones], axis=1
    )
