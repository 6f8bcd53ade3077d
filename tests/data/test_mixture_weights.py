import math

import pytest

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import check
from maquette.data import MixtureOrder
from maquette.data.config import MixtureConfig, PhaseConfig
from maquette.data.mixture import size_weights, unimax_weights


def test_weights_by_size() -> None:
    assert size_weights([100, 300]).tolist() == [0.25, 0.75]
    assert size_weights([100, 300], 0).tolist() == [0.5, 0.5]
    assert size_weights([0, 9], 0).tolist() == [0, 1]


def test_unimax_is_uniform_but_for_bounded_epochs() -> None:
    assert unimax_weights([10, 1000, 1000], 300).tolist() == pytest.approx([40 / 300, 130 / 300, 130 / 300])
    assert unimax_weights([500, 1000], 300).tolist() == [0.5, 0.5]
    assert unimax_weights([100, 300], 10**6).tolist() == [0.25, 0.75]  # four epochs of everything


TOKENS = {"books": 64 * 1000 + 1, "code": 64 * 100 + 1, "docs": 64 * 10 + 1}


def _order(config: MixtureConfig, budget: int = 64 * 300) -> MixtureOrder:
    return MixtureOrder(config, TOKENS, context=64, token_budget=budget, seed=0)


def test_a_power_of_the_size_sets_the_shares_of_a_mixture() -> None:
    assert list(_order(MixtureConfig(temperature=math.inf)).phases[0].weights.values()) == pytest.approx([1 / 3] * 3)
    assert list(_order(MixtureConfig(temperature=2.0)).phases[0].weights.values()) == pytest.approx(
        [10**1.5 / (10**1.5 + 10 + 10**0.5), 10 / (10**1.5 + 10 + 10**0.5), 10**0.5 / (10**1.5 + 10 + 10**0.5)]
    )
    assert _order(MixtureConfig(temperature=1.0)).phases[0].weights == _order(MixtureConfig()).phases[0].weights


def test_unimax_bounds_the_epochs_of_a_run() -> None:
    order = _order(MixtureConfig(max_epochs=2.0))
    assert order.epochs(300)["docs"] == pytest.approx(2.0, abs=0.15)
    assert order.phases[0].weights["books"] == pytest.approx(order.phases[0].weights["code"])
    longer = _order(MixtureConfig(max_epochs=2.0), 64 * 600)
    assert longer.epochs(600)["code"] == pytest.approx(2.0, abs=0.15)
    assert longer.epochs(600)["docs"] == pytest.approx(2.0, abs=0.15)


def test_a_phase_keeps_its_own_weights() -> None:
    order = _order(MixtureConfig(temperature=math.inf, phases=[PhaseConfig(start=0.5, weights={"code": 1.0})]))
    assert order.phases[0].weights["docs"] == pytest.approx(1 / 3)
    assert order.phases[1].weights == {"books": 0.0, "code": 1.0, "docs": 0.0}


def test_shares_in_two_ways_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"mixture\.weights and mixture\.max_epochs are given"):
        MixtureConfig(weights={"code": 1.0}, max_epochs=2.0).validate()
    with pytest.raises(ConfigError, match="temperature"):
        check(MixtureConfig(temperature=-1.0))
