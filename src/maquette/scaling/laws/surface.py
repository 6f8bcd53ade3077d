"""A loss surface as a value: the loss of a model of N parameters trained on D tokens, and what follows from it.

    L(N, D) = E + (A / N^alpha + B / D^beta)^gamma

E is what no model can predict, A / N^alpha what a bigger one would, B / D^beta what more data would. With
gamma = 1 the two add up: Hoffmann et al. 2022 (Chinchilla), equation 2. With E = 0 and beta = 1 it is the joint
law of Kaplan et al. 2020, equation 1.5. At small scale neither need hold; the general surface contains both.

Compute is C = 6 N D FLOPs: two per parameter and token forward, four backward.

Below stand the published surfaces with their sources. Their losses are comparable within a source only: each has its
own text and tokenizer.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from maquette.artifacts import ConfigError
from maquette.scaling.laws.runs import Array, LawError

FLOPS_PER_PARAMETER_AND_TOKEN = 6
"""Forward 2 (a multiplication and an addition) and backward 4 (Kaplan et al. 2020, section 2.1)."""

INFERENCE_FLOPS_PER_PARAMETER_AND_TOKEN = 2


class Allocation(NamedTuple):
    """How compute is spent: `params` N and `tokens` D. `loss(*allocation)` evaluates a surface there."""

    params: Any
    tokens: Any

    @property
    def tokens_per_param(self) -> Any:
        """D / N."""
        return self.tokens / self.params

    @property
    def compute(self) -> Any:
        """6 N D, in FLOPs."""
        return FLOPS_PER_PARAMETER_AND_TOKEN * self.params * self.tokens


@dataclass(frozen=True)
class LossSurface:
    """L(N, D) = E + (A / N^alpha + B / D^beta)^gamma, in nats per token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    gamma: float = 1.0

    def __post_init__(self) -> None:
        values = (self.E, self.A, self.B, self.alpha, self.beta, self.gamma)
        if not np.all(np.isfinite(values)) or self.E < 0 or min(values[1:]) <= 0:
            raise LawError(
                f"No loss surface has E={self.E:g}, A={self.A:g}, B={self.B:g}, alpha={self.alpha:g}, "
                f"beta={self.beta:g}, gamma={self.gamma:g}.",
                "E must be at least 0, the others above 0, all of them finite.",
            )

    def loss(self, params: Any, tokens: Any) -> Any:
        """Loss in nats per token; `params` and `tokens` are numbers or arrays that broadcast."""
        params, tokens = np.asarray(params, float), np.asarray(tokens, float)
        loss = self.E + (self.A * params**-self.alpha + self.B * tokens**-self.beta) ** self.gamma
        return float(loss) if loss.ndim == 0 else loss

    @property
    def exponent(self) -> float:
        """a in N* ~ C^a: beta / (alpha + beta) (Hoffmann et al. 2022, equation 4)."""
        return self.beta / (self.alpha + self.beta)

    def optimal(self, compute: Any) -> Allocation:
        """N and D of least loss among those with 6 N D = `compute` (number or array).

        Hoffmann et al. 2022, equation 4: N* = G (C/6)^(beta/(alpha+beta)), D* = (C/6)^(alpha/(alpha+beta)) / G,
        G = (alpha A / (beta B))^(1/(alpha+beta)). An outer gamma raises all losses alike and moves no minimum.
        """
        compute = np.asarray(compute, float)
        if not np.all(compute > 0):
            raise LawError("The compute must be above 0 FLOPs.")
        product = compute / FLOPS_PER_PARAMETER_AND_TOKEN
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        params = ratio * product**self.exponent
        tokens = product / params
        return Allocation(params, tokens) if params.ndim else Allocation(float(params), float(tokens))

    def params_for(self, tokens: Any) -> Any:
        """The N for which `tokens` D is the optimal amount of data (number or array)."""
        balance = self.alpha * self.A / (self.beta * self.B)
        return (balance * np.asarray(tokens, float) ** self.beta) ** (1 / self.alpha)

    def optimal_loss(self, compute: Any) -> Any:
        """The least loss that `compute` FLOPs buy."""
        return self.loss(*self.optimal(compute))

    def compute_for(self, target_loss: float) -> float:
        """The least compute, in FLOPs, that reaches `target_loss`. Raises `LawError` where none does.

        Along the optimal line both reducible terms are powers of C with one exponent, so it is a closed form.
        """
        reducible = self._reducible(target_loss)
        params, tokens = self.optimal(1.0)
        at_one = self.A * params**-self.alpha + self.B * tokens**-self.beta
        return float((at_one / reducible) ** ((self.alpha + self.beta) / (self.alpha * self.beta)))

    def optimal_for_serving(self, target_loss: float, tokens_served: float) -> Allocation:
        """N and D of loss `target_loss` with the least training and serving: 6 N D + 2 N x `tokens_served`.

        Every token served costs 2 N, so a smaller model trained for longer pays (Sardana et al. 2024, "Beyond
        Chinchilla-Optimal"). On the curve of equal loss let u be the share of A / N^alpha in the reducible part;
        where the cost is stationary, alpha u / (beta (1 - u)) = 1 + tokens_served / (3 D). The left side rises in
        u and the right one falls, so there is one root. Nothing served gives `optimal`.
        Raises `LawError` where the surface does not reach the loss.
        """
        if not tokens_served >= 0:
            raise LawError(f"tokens_served={tokens_served:g} is not an amount of tokens.", "Give 0 or more.")
        reducible = self._reducible(target_loss)

        def tokens_at(logit: float) -> float:
            return float((self.B / (reducible / (1 + np.exp(logit)))) ** (1 / self.beta))

        def stationarity(logit: float) -> float:
            balance = np.log(self.alpha / self.beta) + logit
            return float(balance - np.log1p(tokens_served / 3 / tokens_at(logit)))

        balanced = float(np.log(self.beta / self.alpha))
        upper = balanced + float(np.log1p(tokens_served / 3 / tokens_at(balanced)))
        logit = brentq(stationarity, balanced - 1e-6, upper + 1e-6, xtol=1e-13) if tokens_served else balanced
        params = (self.A / (reducible / (1 + np.exp(-logit)))) ** (1 / self.alpha)
        return Allocation(float(params), tokens_at(logit))

    def tokens_served_for(self, params: float, tokens: float) -> float:
        """The served volume, in tokens, for which (`params`, `tokens`) is what `optimal_for_serving` gives.

        `optimal_for_serving` read backwards: 3 D (alpha A N^-alpha / (beta B D^-beta) - 1). It is negative where
        the model is too big for its data even if it is never served.
        """
        balance = self.alpha * self.A * params**-self.alpha / (self.beta * self.B * tokens**-self.beta)
        return float(3 * tokens * (balance - 1))

    def _reducible(self, target_loss: float) -> float:
        if not target_loss > self.E:
            raise LawError(
                f"No model reaches a loss of {target_loss:g}: the surface ends at E = {self.E:.4g}.",
                "Ask for a loss above it.",
            )
        return float((target_loss - self.E) ** (1 / self.gamma))


@dataclass(frozen=True)
class Uncertainty:
    """A bootstrap's errors of (E, a, alpha, b, beta), a = ln A - alpha x and b = ln B - beta z at `centre` (x, z).

    About its own centre of ln N and ln D a surface's parameters are far less correlated than at N = D = 1, so three
    digits of their correlations are enough to draw surfaces from.
    """

    centre: tuple[float, float]
    deviations: tuple[float, ...]
    correlations: tuple[tuple[float, ...], ...]

    def draw(self, surface: LossSurface, count: int, seed: int = 0) -> Array:
        """`count` surfaces as rows (count, 6) of E, A, B, alpha, beta, gamma, about `surface`."""
        x, z = self.centre
        middle = [
            surface.E,
            np.log(surface.A) - surface.alpha * x,
            surface.alpha,
            np.log(surface.B) - surface.beta * z,
            surface.beta,
        ]
        covariance = np.array(self.correlations) * np.outer(self.deviations, self.deviations)
        drawn = np.random.default_rng(seed).multivariate_normal(middle, covariance, size=count)
        floor, a, alpha, b, beta = drawn.T
        floor, alpha, beta = np.maximum(floor, 0), np.maximum(alpha, 1e-3), np.maximum(beta, 1e-3)
        gamma = np.full(count, surface.gamma)
        return np.stack([floor, np.exp(a + alpha * x), np.exp(b + beta * z), alpha, beta, gamma], axis=1)


@dataclass(frozen=True)
class PublishedSurface:
    """A surface, where it stands, and what its N counts. `uncertainty` is None where no more than it was published."""

    surface: LossSurface
    source: str
    note: str
    uncertainty: Uncertainty | None = field(default=None, repr=False)

    def samples(self, count: int = 2000, seed: int = 0) -> Array:
        """Surfaces (count, 6) within its uncertainty; none, (0, 6), where that is not known."""
        return np.empty((0, 6)) if self.uncertainty is None else self.uncertainty.draw(self.surface, count, seed)


HOFFMANN_2022 = PublishedSurface(
    LossSurface(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
    'Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", equation 10',
    "All parameters. Rounded, and not the optimum of its own objective (Besiroglu et al. 2024): it asks for far more "
    "tokens than the same paper's other two approaches.",
)

BESIROGLU_2024 = PublishedSurface(
    LossSurface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658),
    'Besiroglu et al. 2024, "Chinchilla Scaling: A Replication Attempt", table 1',
    "Hoffmann's runs, read off the paper's figure and fitted again. The uncertainty is this project's bootstrap (4,000 "
    "resamples of the same 240 runs, least absolute deviation), which reproduces the published values.",
    Uncertainty(
        centre=(20.5593, 23.5532),
        deviations=(0.0262, 0.0618, 0.0159, 0.0663, 0.0209),
        correlations=(
            (1.0, -0.554, 0.587, -0.558, 0.584),
            (-0.554, 1.0, -0.987, -0.377, 0.327),
            (0.587, -0.987, 1.0, 0.325, -0.287),
            (-0.558, -0.377, 0.325, 1.0, -0.985),
            (0.584, 0.327, -0.287, -0.985, 1.0),
        ),
    ),
)

MUENNIGHOFF_2023 = PublishedSurface(
    LossSurface(E=1.86914, A=520.825, B=1487.716, alpha=0.3526596, beta=0.3526596),
    'Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", appendix A',
    "All parameters, on C4; the surface under the law of repetition (laws/repetition.py).",
)

KAPLAN_2020 = PublishedSurface(
    LossSurface(E=0.0, A=6.4e13 ** (0.076 / 0.103), B=1.8e13, alpha=0.076 / 0.103, beta=1.0, gamma=0.103),
    'Kaplan et al. 2020, "Scaling Laws for Neural Language Models", equation 1.5 and table 2',
    "Parameters without the vocabulary's; trained to convergence with early stopping, so D is the data there is, not "
    "the tokens passed.",
)

PUBLISHED = {
    "besiroglu_2024": BESIROGLU_2024,
    "hoffmann_2022": HOFFMANN_2022,
    "muennighoff_2023": MUENNIGHOFF_2023,
    "kaplan_2020": KAPLAN_2020,
}


def published_surface(name: str) -> PublishedSurface:
    """A published surface by name. Raises `ConfigError` with the known names."""
    if name not in PUBLISHED:
        raise ConfigError(f"No published surface is called {name}.", f"Known: {', '.join(PUBLISHED)}.")
    return PUBLISHED[name]
