"""The learning rate's line over sizes."""

import numpy as np
import pytest

from maquette.scaling import LawError, fit_setting_law

SIZES = np.repeat([1e5, 3e5, 1e6, 3e6], 5)
BEST = 0.2 * SIZES**-0.4


def swept(off: float = 1.0) -> np.ndarray:
    return BEST * off * np.tile(np.geomspace(0.25, 4, 5), 4)


def loss_of(rates: np.ndarray) -> np.ndarray:
    return 4 * SIZES**-0.05 * np.exp(0.02 * np.log(rates / BEST) ** 2)


def test_the_line_through_the_best_rates() -> None:
    rates = swept(1.3)
    result = fit_setting_law(SIZES, rates, loss_of(rates))
    assert (result.coefficient, result.exponent) == pytest.approx((0.2, -0.4), rel=1e-6)
    assert result.value(1e8) == pytest.approx(0.2 * 1e8**-0.4, rel=1e-6)
    assert result.optima[0].cost_of_doubling == pytest.approx(np.expm1(0.02 * np.log(2) ** 2))
    assert result.warnings == ()


def test_runs_far_from_the_best_do_not_move_it() -> None:
    rates = np.repeat(BEST[::5], 7) * np.tile(np.geomspace(1 / 8, 8, 7), 4)
    sizes = np.repeat(SIZES[::5], 7)
    loss = 4 * sizes**-0.05 * np.exp(0.02 * np.log(rates / np.repeat(BEST[::5], 7)) ** 2)
    diverged = loss.copy()
    diverged[6::7] *= 3
    assert fit_setting_law(sizes, rates, diverged).optima == fit_setting_law(sizes, rates, loss).optima


def test_a_best_rate_at_the_edge_is_left_out_and_named() -> None:
    rates = swept()
    rates[:5] *= 40
    result = fit_setting_law(SIZES, rates, loss_of(rates))
    assert len(result.optima) == 3 and any(
        "1e+05" in text and "smallest learning rate" in text for text in result.warnings
    )
    with pytest.raises(LawError, match="Fewer than two sizes have a best batch"):
        fit_setting_law(SIZES, swept(40), loss_of(swept(40)), name="batch")
