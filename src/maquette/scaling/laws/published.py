"""Published loss surfaces, as values with their sources.

Losses are comparable within a source only: each has its own text and tokenizer.
"""

from dataclasses import dataclass, field

import numpy as np

from maquette.artifacts import ConfigError
from maquette.scaling.laws.gauss_newton import Array
from maquette.scaling.laws.surface import LossSurface


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
    "All parameters, on C4; the surface under the law of repetition (scaling/repetition.py).",
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
