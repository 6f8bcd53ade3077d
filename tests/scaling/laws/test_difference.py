"""Slope or intercept: two families against compute."""

import numpy as np
import pytest
from scipy import stats

from maquette.scaling import LawError, compare_families, decision_accuracy

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


def test_a_difference_is_predicted_and_its_interval_holds() -> None:
    inside = {0.5: 0, 0.9: 0}
    for seed in range(100):
        result = compare_families(
            COMPUTE, 10 * COMPUTE**-0.05 * noisy(2 * seed), COMPUTE, 9 * COMPUTE**-0.047 * noisy(2 * seed + 1)
        )
        forecast = result.predict(1e15)
        truth = 0.9 * 1e15**0.003 - 1
        for level in inside:
            inside[level] += forecast.intervals[level][0] <= truth <= forecast.intervals[level][1]
    assert 38 <= inside[0.5] <= 68 and 84 <= inside[0.9] <= 98
    wide, near = result.predict([1e15, 1e20]).intervals[0.9], result.predict(1e15).intervals[0.9]
    assert wide[1][1] - wide[0][1] > 2 * (near[1] - near[0])


def test_where_two_laws_cross_is_told_with_an_interval() -> None:
    inside = 0
    for seed in range(100):
        first = 10 * COMPUTE**-0.05 * noisy(2 * seed)
        second = 10 * COMPUTE**-0.05 * (COMPUTE / 1e16) ** -0.01 * noisy(2 * seed + 1)
        result = compare_families(COMPUTE, first, COMPUTE, second, names=("small", "large"))
        inside += result.crossing_interval.contains(1e16)
    assert 82 <= inside <= 98
    assert "cross at" in result.words and "large is the better" in result.words
    assert 1e15 < result.crossing < 1e17
    parallel = compare_families(COMPUTE, 10 * COMPUTE**-0.05 * noisy(0), COMPUTE, 9.7 * COMPUTE**-0.05 * noisy(1))
    assert parallel.crossing_interval == (0, np.inf) and "cross" not in parallel.words


def test_a_ranking_that_holds_turns_or_is_noise() -> None:
    largest = [3.0, 3.1, 3.2, 3.2001]
    losses = np.array([[4.0, 3.5, 3.0], [4.1, 3.4, 3.1], [4.2, 3.6, 3.2], [4.3, np.nan, 3.2001]])
    assert losses[:, -1].tolist() == largest
    assert decision_accuracy(losses).tolist() == [1.0, pytest.approx(2 / 3)]
    turned = losses.copy()
    turned[2:, 0] = turned[[3, 2], 0]
    assert decision_accuracy(turned)[0] == pytest.approx(5 / 6)
    assert decision_accuracy(turned, noise=0.001)[0] == 1.0  # the pair that was turned has no order
    assert np.isnan(decision_accuracy(losses[[0, 3]])[1])
    with pytest.raises(LawError, match="two budgets"):
        decision_accuracy(losses[:, :1])
