import numpy as np
import pytest

from maquette.scaling import LawError
from maquette.scaling.laws.mixing_law import MixingLaw, fit_mixing_law

TRUE = MixingLaw(
    np.array([2.0, 1.5]), np.array([1.0, 0.8]), np.array([[-1.0, 0.5, 0.1], [0.6, -0.9, 0.2]]), np.zeros((0, 2))
)


def test_a_law_is_recovered_and_its_optimum_beats_every_mixture() -> None:
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    law = fit_mixing_law(weights, TRUE.losses(weights))
    assert np.abs(law.residuals).max() < 1e-5
    others = np.random.default_rng(1).dirichlet([1, 1, 1], 500)
    assert law.losses(others) == pytest.approx(TRUE.losses(others), abs=1e-3)
    best = law.optimum([0.5, 0.5], [0, 0, 0], [1, 1, 1])
    assert best.sum() == pytest.approx(1)
    assert TRUE.losses(best).mean() <= TRUE.losses(others).mean(axis=1).min() + 1e-6
    bounded = law.optimum([0.5, 0.5], [0, 0, 0.3], [0.4, 1, 1])
    assert bounded[2] >= 0.3 - 1e-9 and bounded[0] <= 0.4 + 1e-9


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(LawError, match="at least 4 runs"):
        fit_mixing_law(np.ones((3, 3)) / 3, np.ones((3, 2)))
    with pytest.raises(LawError, match="allow no mixture"):
        TRUE.optimum([1, 1], [0.5, 0.5, 0.5], [1, 1, 1])
