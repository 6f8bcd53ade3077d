"""Slope or intercept: two families against compute."""

import numpy as np
import pytest
from scipy import stats

from maquette.scaling import LawError, compare_families

COMPUTE = np.geomspace(1e12, 1e15, 6)


def noisy(seed: int) -> np.ndarray:
    return np.exp(0.003 * np.random.default_rng(seed).standard_normal(6))


def test_a_shift_is_called_one_and_priced_in_compute() -> None:
    result = compare_families(
        COMPUTE, 10 * COMPUTE**-0.05 * noisy(0), COMPUTE, 9.7 * COMPUTE**-0.05 * noisy(1), names=("GELU", "SwiGLU")
    )
    assert result.slope_interval.contains(0)
    assert result.ratio_interval.contains(-0.03) and not result.ratio_interval.contains(0)
    assert "SwiGLU" in result.words and "only the constant differs" in result.words
    assert result.compute_factor == pytest.approx(0.97 ** (-1 / 0.05), rel=0.1)


def test_a_tilt_is_called_one_and_its_direction_said() -> None:
    result = compare_families(COMPUTE, 10 * COMPUTE**-0.05 * noisy(0), COMPUTE, 8 * COMPUTE**-0.04 * noisy(1))
    assert result.slope_interval.contains(0.01) and not result.slope_interval.contains(0)
    assert "slope differs" in result.words and "widens" in result.words
    closing = compare_families(COMPUTE, 10 * COMPUTE**-0.05 * noisy(0), COMPUTE, 16 * COMPUTE**-0.06 * noisy(1))
    assert "closes" in closing.words


def test_no_difference_is_called_none() -> None:
    result = compare_families(COMPUTE, 10 * COMPUTE**-0.05 * noisy(2), COMPUTE, 10 * COMPUTE**-0.05 * noisy(3))
    assert "no difference" in result.words


def test_intervals_are_those_of_a_joint_regression() -> None:
    first, second = 10 * COMPUTE**-0.05 * noisy(0), 9.7 * COMPUTE[1:] ** -0.05 * noisy(1)[1:]
    result = compare_families(COMPUTE, first, COMPUTE[1:], second)
    log_compute = np.log(np.concatenate([COMPUTE, COMPUTE[1:]]))
    u = log_compute - log_compute.mean()
    group = np.repeat([0.0, 1.0], [6, 5])
    basis = np.stack([np.ones(11), u, group, group * u], axis=1)
    y = np.log(np.concatenate([first, second]))
    coefficients, rest, *_ = np.linalg.lstsq(basis, y, rcond=None)
    errors = np.sqrt(np.diag(np.linalg.inv(basis.T @ basis)) * rest[0] / 7)
    reach = stats.t.ppf(0.95, 7)
    assert (result.slope, result.ratio) == pytest.approx((coefficients[3], np.expm1(coefficients[2])))
    assert result.slope_interval.width == pytest.approx(2 * reach * errors[3])
    assert result.ratio_interval.high == pytest.approx(np.expm1(coefficients[2] + reach * errors[2]))


def test_two_points_each_leave_nothing_to_judge_by() -> None:
    with pytest.raises(LawError, match="no scatter"):
        compare_families(COMPUTE[:2], [4.0, 3.0], COMPUTE[:2], [4.1, 3.2])
