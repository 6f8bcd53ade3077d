"""IsoFLOP minima, their line, and what the method says about its own errors."""

import numpy as np
import pytest

from maquette.scaling import LawError, fit_envelope, fit_isoflop
from maquette.scaling.laws.minimum import curve_minimum
from maquette.scaling.laws.surface import BESIROGLU_2024, HOFFMANN_2022
from support.sweeps import isoflop_sweep

SURFACE = HOFFMANN_2022.surface
BUDGETS = np.geomspace(1e17, 1e21, 5)


@pytest.mark.parametrize("method", ["parabola", "akima"])
def test_a_narrow_centred_grid_is_read_right(method: str) -> None:
    fit = fit_isoflop(*isoflop_sweep(SURFACE, BUDGETS, width=2, sizes=9), method=method)
    assert fit.exponent == pytest.approx(SURFACE.exponent, abs=2e-3)
    assert len(fit.optima) == 5 and fit.warnings == ()
    for optimum in fit.optima:
        best = SURFACE.optimal(optimum.budget)
        assert (optimum.params, optimum.tokens) == pytest.approx(best, rel=0.02)
        assert optimum.loss == pytest.approx(SURFACE.loss(*best), rel=1e-3)
    assert fit.params_law.law.value(1e19) == pytest.approx(fit.coefficient * 1e19**fit.exponent)
    assert fit.tokens_law.exponent == pytest.approx(1 - fit.exponent)


def test_a_parabola_is_found_exactly_and_a_spline_through_its_points() -> None:
    x = np.array([0.0, 1.0, 2.0, 4.0, 5.0])
    result = curve_minimum(x, 3 + 0.5 * (x - 1.7) ** 2)
    assert (result.x, result.y, result.curvature) == pytest.approx((1.7, 3.0, 1.0))
    assert result.position == pytest.approx(1.7 / 5) and result.edge == ""
    assert curve_minimum(x, (x - 1.9) ** 2, "akima").x == pytest.approx(1.9, abs=0.1)


@pytest.mark.parametrize("method", ["parabola", "akima"])
def test_an_edge_minimum_is_left_out_and_named(method: str) -> None:
    sweep = isoflop_sweep(SURFACE, BUDGETS, width=2)
    moved = sweep.budgets == BUDGETS[4]
    params = np.where(moved, sweep.params * 30, sweep.params)
    tokens = sweep.budgets / 6 / params
    fit = fit_isoflop(params, tokens, SURFACE.loss(params, tokens), sweep.budgets, method=method)
    assert [o.budget for o in fit.optima] == pytest.approx(BUDGETS[:4])
    assert any("1e+21" in text and "smallest" in text for text in fit.warnings)
    assert fit.exponent == pytest.approx(SURFACE.exponent, abs=5e-3)


def test_all_minima_at_edges_are_refused_by_name() -> None:
    sweep = isoflop_sweep(SURFACE, BUDGETS, width=2, off=0.05)
    with pytest.raises(LawError, match="None of 5 budgets") as caught:
        fit_isoflop(*sweep)
    assert "largest" in caught.value.hint and "1e+17" in caught.value.hint


def test_wide_grids_are_warned_of_with_the_size_of_their_bias() -> None:
    wide = isoflop_sweep(SURFACE, BUDGETS, width=64, sizes=9)
    fit = fit_isoflop(*wide)
    warnings = " ".join(fit.warnings)
    assert "Wide grids" in warnings and "method=akima" in warnings and "up to 12% off" in warnings
    assert fit.bias is not None
    true = np.array([SURFACE.optimal(budget).params for budget in BUDGETS])
    sizes = np.array([optimum.params for optimum in fit.optima])
    assert fit.bias.params == pytest.approx(tuple(sizes / true - 1), abs=1e-6)
    assert fit.bias.exponent == pytest.approx(fit.exponent - SURFACE.exponent, abs=1e-6)
    assert not any("Wide" in text for text in fit_isoflop(*wide, method="akima").warnings)


def test_a_grid_that_drifts_off_centre_bends_the_exponent_and_says_so() -> None:
    drift = np.repeat(np.geomspace(1, 1 / 4, 5), 9)
    sweep = isoflop_sweep(SURFACE, BUDGETS, width=8, sizes=9)
    params = sweep.params * drift
    tokens = sweep.budgets / 6 / params
    fit = fit_isoflop(params, tokens, SURFACE.loss(params, tokens), sweep.budgets)
    assert any("Off-centre" in text for text in fit.warnings)
    assert fit.bias is not None and fit.bias.exponent == pytest.approx(fit.exponent - SURFACE.exponent, abs=1e-5)
    assert abs(fit.bias.exponent) > 1e-3


def test_the_interval_holds_under_noise() -> None:
    surface = BESIROGLU_2024.surface
    held = [
        fit_isoflop(*isoflop_sweep(surface, BUDGETS, noise=0.003, seed=seed)).interval.contains(surface.exponent)
        for seed in range(30)
    ]
    assert np.mean(held) > 0.8


@pytest.mark.parametrize("few", [1, 2])
def test_few_budgets(few: int) -> None:
    sweep = isoflop_sweep(SURFACE, BUDGETS[:few])
    if few == 1:
        with pytest.raises(LawError, match="Only one of 1"):
            fit_isoflop(*sweep)
    else:
        fit = fit_isoflop(*sweep)
        assert fit.interval == (-np.inf, np.inf) and any("no interval" in text for text in fit.warnings)


def test_budgets_with_two_sizes_are_left_out() -> None:
    sweep = isoflop_sweep(SURFACE, BUDGETS)
    rows = np.ones(35, bool)
    rows[2:7] = False
    fit = fit_isoflop(*(column[rows] for column in sweep))
    assert len(fit.optima) == 4 and any("fewer than three sizes" in text for text in fit.warnings)


def test_unknown_methods_and_bad_columns_are_refused() -> None:
    sweep = isoflop_sweep(SURFACE, BUDGETS)
    with pytest.raises(LawError, match="method=cubic"):
        fit_isoflop(*sweep, method="cubic")
    with pytest.raises(LawError, match="budgets is -1 in row 0"):
        fit_isoflop(sweep.params, sweep.tokens, sweep.loss, np.full(35, -1.0))


def test_the_envelope_runs_through_the_best_runs() -> None:
    sweep = isoflop_sweep(SURFACE, BUDGETS, width=2, sizes=21)
    fit = fit_envelope(sweep.params, sweep.loss, sweep.budgets)
    assert fit.rows == tuple(range(10, 105, 21))
    assert fit.exponent == pytest.approx(SURFACE.exponent, abs=1e-3)
    with pytest.raises(LawError, match="2 runs lie on the envelope"):
        fit_envelope(sweep.params[:42], sweep.loss[:42], sweep.budgets[:42])


def test_a_spline_does_not_follow_the_noise_between_sizes_that_are_nearly_one() -> None:
    """Runs read off a figure lie closer together than their noise allows a curve to be drawn through all of them."""
    x = np.log(np.geomspace(1e8, 1e9, 9))
    x = np.sort(np.concatenate([x, x + 1e-3]))
    truth = 3 + 0.05 * (x - x.mean()) ** 2
    y = np.log(truth * np.tile([1.0, 1.004], 9))
    result = curve_minimum(x, y, "akima")
    assert not result.edge
    assert np.exp(result.y) == pytest.approx(3.006, abs=0.01)
    falling = curve_minimum(x, np.log(truth) - 0.1 * x, "akima")
    assert falling.edge == "largest" and falling.position == 1
