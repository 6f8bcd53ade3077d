"""Power laws with and without a floor."""

import numpy as np
import pytest
from scipy import stats

from maquette.scaling import LawError, fit_power_law

X = np.geomspace(1e5, 1e9, 12)


def test_the_line_is_recovered_and_its_intervals_are_those_of_regression() -> None:
    y = 30 * X**-0.12 * np.exp(0.01 * np.random.default_rng(0).standard_normal(12))
    fit = fit_power_law(X, y)
    expected = stats.linregress(np.log(X), np.log(y))
    reach = stats.t.ppf(0.95, 10)
    assert fit.exponent == pytest.approx(expected.slope)
    assert fit.coefficient == pytest.approx(np.exp(expected.intercept))
    assert fit.interval["exponent"].width == pytest.approx(2 * reach * expected.stderr)
    low, high = np.log(fit.interval["coefficient"])
    assert high - low == pytest.approx(2 * reach * expected.intercept_stderr)


def test_a_rising_law_is_one_too() -> None:
    fit = fit_power_law(X, 0.09 * X**0.5)
    assert (fit.coefficient, fit.exponent) == pytest.approx((0.09, 0.5))
    assert fit.interval["exponent"].width < 1e-9


def test_the_prediction_interval_is_that_of_regression() -> None:
    y = 30 * X**-0.12 * np.exp(0.01 * np.random.default_rng(0).standard_normal(12))
    fit = fit_power_law(X, y)
    u = np.log(X) - np.log(X).mean()
    at = np.log(1e11) - np.log(X).mean()
    error = fit.noise * np.sqrt(1 + 1 / 12 + at**2 / (u @ u))
    low, high = np.log(fit.predict(1e11).interval)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.95, 10) * error)


def test_the_floor_is_recovered() -> None:
    fit = fit_power_law(X, 1.7 + 40 * X**-0.3, floor=True)
    assert (fit.floor, fit.coefficient, fit.exponent) == pytest.approx((1.7, 40, -0.3), rel=1e-5)


def test_the_floors_interval_holds() -> None:
    held = []
    for seed in range(30):
        noise = np.exp(0.004 * np.random.default_rng(seed).standard_normal(12))
        fit = fit_power_law(X, (1.7 + 40 * X**-0.3) * noise, floor=True, bootstrap=150)
        held.append(fit.interval["floor"].contains(1.7))
    assert np.mean(held) > 0.8


def test_without_a_floor_none_is_claimed() -> None:
    noise = np.exp(0.01 * np.random.default_rng(1).standard_normal(12))
    fit = fit_power_law(X, 30 * X**-0.12 * noise, floor=True)
    assert any("floor" in text for text in fit.warnings)
    assert fit.predict(1e10).interval.contains(30 * 1e10**-0.12)


@pytest.mark.parametrize(
    ("x", "y", "floor", "message"),
    [
        ([1.0], [2.0], False, "1 distinct x"),
        ([3.0, 3.0, 3.0], [1.0, 2.0, 3.0], False, "1 distinct x"),
        ([1.0, 2.0], [2.0, 1.0], True, "or fit it without a floor"),
        ([1.0, 2.0], [2.0, -1.0], False, "y is -1 in row 1"),
        ([1.0, np.nan], [2.0, 1.0], False, "x is nan in row 1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: list[float], y: list[float], floor: bool, message: str) -> None:
    with pytest.raises(LawError, match=message):
        fit_power_law(x, y, floor)


def test_two_points_have_a_line_and_no_interval() -> None:
    fit = fit_power_law([1.0, 10.0], [8.0, 2.0])
    assert fit.interval["exponent"] == (-np.inf, np.inf)
    assert any("no interval" in text for text in fit.warnings)
