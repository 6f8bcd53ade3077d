"""Length-controlled win rates: the injected verbosity case, invariances, a plain fit, and what is refused."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from maquette.artifacts import ConfigError
from maquette.evaluation import length_controlled_win_rate

PROMPTS = 600
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def judged(factor: float, quality: float = 0.0, seed: int = 0, length_preference: float = 1.2) -> Columns:
    """Preferences of a judge who likes the longer answer, and both lengths; `factor` times the baseline's."""
    generator = np.random.default_rng(seed)
    baseline = generator.lognormal(5, 0.4, PROMPTS)
    lengths = baseline * factor * generator.lognormal(0, 0.35, PROMPTS)
    wins = generator.random(PROMPTS) < expit(length_preference * np.tanh((lengths - baseline) / 120) + quality)
    return wins.astype(float), lengths, baseline


def anchors(baseline: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    twins = {"verbose": baseline * 1.8, "concise": baseline * 0.5}
    return {name: (expit(1.2 * np.tanh((long - baseline) / 120)), long) for name, long in twins.items()}


@pytest.mark.parametrize("with_anchors", [False, True])
def test_twins_part_in_raw_rate_and_meet_when_length_is_controlled(with_anchors: bool) -> None:
    rates = {}
    for name, factor in (("verbose", 1.4), ("concise", 0.6)):
        wins, lengths, baseline = judged(factor, seed=1)
        given = anchors(baseline) if with_anchors else None
        rates[name] = length_controlled_win_rate(wins, lengths, baseline, anchors=given)
        assert rates[name].raw == pytest.approx(100 * wins.mean())
        assert rates[name].length_effect < 0
    assert rates["verbose"].raw - rates["concise"].raw > 20
    assert abs(rates["verbose"].controlled - rates["concise"].controlled) < 10
    for rate in rates.values():
        assert abs(rate.controlled - 50) < 2.5 * rate.standard_error


def test_quality_survives() -> None:
    """A better model that is also longer keeps what it earned by quality, and only that."""
    rate = length_controlled_win_rate(*judged(1.4, quality=0.8, seed=2))
    assert rate.raw > 76
    assert rate.controlled == pytest.approx(100 * expit(0.8), abs=2.5 * rate.standard_error)


def test_agrees_with_a_plain_fit() -> None:
    """Where there is much data the penalty is small: the maximum of the likelihood, by SciPy."""
    wins, lengths, baseline = judged(1.2, quality=0.4, seed=3)
    hardness = np.random.default_rng(4).normal(size=PROMPTS)
    wins = (np.random.default_rng(5).random(PROMPTS) < expit(0.5 * hardness + np.where(wins > 0, 0.8, -0.8))).astype(
        float
    )
    z = np.tanh((baseline - lengths) / np.std(baseline - lengths, ddof=1))

    def loss(theta: np.ndarray) -> float:
        odds = theta[0] * z + theta[1] * hardness + theta[2]
        return -float(wins @ log_expit(odds) + (1 - wins) @ log_expit(-odds))

    t, a, b = minimize(loss, np.zeros(3)).x
    rate = length_controlled_win_rate(wins, lengths, baseline, difficulty=hardness)
    assert rate.controlled == pytest.approx(100 * expit(a * hardness + b).mean(), abs=0.5)
    assert rate.length_effect == pytest.approx(t, abs=0.1)


def test_standard_error_is_the_spread_over_samples_of_prompts() -> None:
    rates = [length_controlled_win_rate(*judged(1.3, seed=seed)) for seed in range(24)]
    spread = np.std([rate.controlled for rate in rates], ddof=1)
    assert np.mean([rate.standard_error for rate in rates]) == pytest.approx(spread, rel=0.4)


def test_roles_swapped_gives_the_rest_to_a_hundred() -> None:
    wins, lengths, baseline = judged(1.3, quality=0.3, seed=6)
    rate = length_controlled_win_rate(wins, lengths, baseline)
    swapped = length_controlled_win_rate(1 - wins, baseline, lengths)
    assert swapped.controlled == pytest.approx(100 - rate.controlled, abs=1e-3)
    assert swapped.standard_error == pytest.approx(rate.standard_error, rel=1e-3)


def test_units_do_not_matter_and_soft_preferences_count() -> None:
    wins, lengths, baseline = judged(1.3, seed=7)
    rate = length_controlled_win_rate(wins, lengths, baseline)
    assert length_controlled_win_rate(wins, lengths / 4.2, baseline / 4.2).controlled == pytest.approx(rate.controlled)
    halves = length_controlled_win_rate(np.full(PROMPTS, 0.5), lengths, baseline)
    assert (halves.raw, halves.controlled) == pytest.approx((50, 50), abs=1e-3)


def test_equal_lengths_have_nothing_to_control() -> None:
    wins, _, baseline = judged(1.0, seed=8)
    rate = length_controlled_win_rate(wins, baseline, baseline)
    assert rate.controlled == pytest.approx(rate.raw, abs=0.01)
    assert length_controlled_win_rate(np.ones(10), np.arange(10), np.full(10, 3)).controlled == 100


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"preferences\[1\] is 2"):
        length_controlled_win_rate([0, 2], [1, 2], [2, 1])
    with pytest.raises(ConfigError, match="lengths has shape"):
        length_controlled_win_rate([0, 1], [1, 2, 3], [2, 1])
    with pytest.raises(ConfigError, match=r"preferences\[0\] is nan"):
        length_controlled_win_rate([np.nan, 1], [1, 2], [2, 1])
    with pytest.raises(ConfigError, match="can't be told apart"):
        length_controlled_win_rate([0, 1, 1], [5, 6, 7], [1, 2, 3])
    with pytest.raises(ConfigError, match="two prompts"):
        length_controlled_win_rate([1], [5], [1])
