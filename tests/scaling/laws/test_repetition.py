"""The law of repeated data (Muennighoff et al. 2023)."""

import numpy as np
import pytest

from maquette.scaling import LawError, RepetitionLaw, fit_repetition
from maquette.scaling.laws.repetition import effective
from maquette.scaling.laws.surface import BESIROGLU_2024, KAPLAN_2020, MUENNIGHOFF_2023

SURFACE = BESIROGLU_2024.surface


def test_worth_of_repetition_by_hand() -> None:
    assert effective(5.0, 10.0, 15.4) == 5
    assert effective(20.0, 10.0, 15.4) == pytest.approx(10 + 10 * 15.4 * (1 - np.exp(-1 / 15.4)))
    assert effective(1e9, 10.0, 15.4) == pytest.approx(10 * 16.4)


def test_four_epochs_cost_next_to_nothing_and_sixteen_much() -> None:
    law = RepetitionLaw(MUENNIGHOFF_2023.surface)
    fresh = MUENNIGHOFF_2023.surface.loss(2e9, 4e10)
    assert law.loss(2e9, 4e10, 4e10) == pytest.approx(fresh)
    four, forty = law.loss(2e9, 4e10, 1e10), law.loss(2e9, 4e10, 1e9)
    assert 0 < four - fresh < 0.03
    assert forty - fresh > 0.2


def test_with_enough_data_the_optimum_is_the_surfaces_own() -> None:
    law = RepetitionLaw(SURFACE)
    assert law.optimal(1e22, 1e13) == SURFACE.optimal(1e22)


def test_with_too_little_data_compute_goes_to_epochs_and_parameters() -> None:
    law = RepetitionLaw(SURFACE)
    free, bound = SURFACE.optimal(1e22), law.optimal(1e22, 5e10)
    assert bound.compute == pytest.approx(1e22)
    assert bound.tokens > 5e10
    for factor in (0.9, 1.1):
        other = bound.params * factor
        assert law.loss(other, 1e22 / 6 / other, 5e10) >= law.loss(*bound, 5e10)
    assert law.loss(*bound, 5e10) > SURFACE.loss(*free)


def test_the_decay_is_recovered_with_an_interval_that_holds() -> None:
    params = np.repeat([1e8, 4e8, 1e9], 6)
    unique = np.tile([1e9, 1e9, 1e9, 4e9, 4e9, 4e9], 3)
    tokens = unique * np.tile([2, 8, 30, 1, 4, 20], 3)
    exact = RepetitionLaw(SURFACE, token_decay=12.0).loss(params, tokens, unique)
    fit = fit_repetition(params, tokens, unique, exact, SURFACE, bootstrap=50)
    assert fit.law.token_decay == pytest.approx(12.0, rel=1e-6) and fit.warnings == ()
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(18))
    assert fit_repetition(params, tokens, unique, exact * noise, SURFACE).interval.contains(12.0)


def test_runs_that_repeat_nothing_and_other_surfaces_are_refused() -> None:
    with pytest.raises(LawError, match="No run repeats"):
        fit_repetition([1e8, 2e8], [1e9, 1e9], [1e9, 1e9], [3.0, 2.9], SURFACE)
    with pytest.raises(LawError, match="additive"):
        fit_repetition([1e8], [2e9], [1e9], [3.0], KAPLAN_2020.surface)


def test_a_few_epochs_are_too_few() -> None:
    tokens, unique = np.array([1e9, 2e9, 2.5e9]), np.full(3, 1e9)
    loss = RepetitionLaw(SURFACE).loss(1e8, tokens, unique)
    assert any("too few" in text for text in fit_repetition(np.full(3, 1e8), tokens, unique, loss, SURFACE).warnings)
