import numpy as np
import pytest

from maquette.scaling import LawError
from maquette.scaling.laws.mixing_law import MixingLaw, MixtureLaw, TransferLaw, fit_mixing_law, fit_transfer_law

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


TRANSFER = TransferLaw(
    np.array([2.0, 1.5, 1.8]), np.array([[1.0, 0.3, 0.02], [0.1, 1.5, 0.1], [0.05, 0.2, 2.0]]),
    np.array([0.3, 0.2, 0.5]), np.zeros((0, 3)),
)  # fmt: skip


def test_a_law_of_transfer_is_recovered() -> None:
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    law = fit_transfer_law(weights, TRANSFER.losses(weights))
    assert np.abs(law.residuals).max() < 1e-4
    others = np.random.default_rng(1).dirichlet([1, 1, 1], 500)
    best = law.optimum([1 / 3, 1 / 3, 1 / 3], [0, 0, 0], [1, 1, 1])
    assert TRANSFER.losses(best).mean() <= TRANSFER.losses(others).mean(axis=1).min() + 1e-4
    assert law.worth[0] / law.worth[0, 0] == pytest.approx([1.0, 0.3, 0.02], abs=0.05)


@pytest.mark.parametrize("law", [TRUE, TRANSFER])
def test_slopes_are_derivatives(law: MixtureLaw) -> None:
    at, step = np.array([0.5, 0.3, 0.2]), 1e-6 * np.eye(3)
    measured = np.stack([(law.losses(at + one) - law.losses(at - one)) / 2e-6 for one in step], axis=-1)
    assert law.slopes(at) == pytest.approx(measured, rel=1e-5)


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(LawError, match="at least 4 runs"):
        fit_mixing_law(np.ones((3, 3)) / 3, np.ones((3, 2)))
    with pytest.raises(LawError, match="at least 5 runs"):
        fit_transfer_law(np.ones((4, 3)) / 3, np.ones((4, 3)))
    with pytest.raises(LawError, match="allow no mixture"):
        TRUE.optimum([1, 1], [0.5, 0.5, 0.5], [1, 1, 1])
