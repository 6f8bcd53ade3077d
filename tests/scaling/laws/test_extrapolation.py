"""The form is chosen by what it predicted, and its interval counts how wrong it has been."""

from functools import cache

import numpy as np
import pytest

from maquette.scaling import FormComparison, LawError, LossSurface, compare_forms, fit_isoflop
from maquette.scaling.laws.extrapolation import TOO_FEW
from maquette.scaling.laws.fitted_form import minima_curvature
from maquette.scaling.laws.runs import group_budgets, seed_noise
from support.sweeps import Sweep, half_decades, isoflop_sweep

# Losses of 4.3 to 3 nats with a sharp interaction of N and D, as small models have; and one where they add up.
SHARP = LossSurface(E=1.0, A=4e3, B=1e4, alpha=0.75, beta=0.70, gamma=0.35)
KAPLAN = LossSurface(E=0, A=8e3, B=2.6e4, alpha=0.9, beta=1, gamma=0.16)
ADDITIVE = LossSurface(E=1.2, A=60, B=160, alpha=0.3, beta=0.3)


def sweep_of(surface: LossSurface, budgets: int) -> Sweep:
    return isoflop_sweep(surface, half_decades(1e11, budgets), width=5, noise=0.003)


@cache
def compared(surface: LossSurface, budgets: int) -> FormComparison:
    return compare_forms(*sweep_of(surface, budgets), bootstrap=40)


# Along the best sizes Kaplan's law is a power law in compute, and that of the minima has fewer parameters.
@pytest.mark.parametrize(("truth", "form"), [(ADDITIVE, "additive"), (KAPLAN, "minima"), (SHARP, "general")])
def test_the_true_form_is_chosen_and_predicts(truth: LossSurface, form: str) -> None:
    comparison = compared(truth, 6)
    assert comparison.chosen == comparison.headline == form
    best = truth.optimal(10 * comparison.largest_budget)
    forecast = comparison.predict(*best)
    assert forecast.loss == pytest.approx(truth.loss(*best), rel=0.02)
    low, high = forecast.intervals[0.9]
    assert low < truth.loss(*best) < high
    assert comparison.predict(*best, form=form) == forecast


def test_a_wrong_form_is_told_what_it_costs_and_its_interval_shows_it() -> None:
    comparison = compared(SHARP, 6)
    assert comparison.overall["additive"] > 5 * comparison.overall["general"]
    assert "times that of general" in comparison.cost_of("additive")
    best = SHARP.optimal(10 * comparison.largest_budget)
    forced, chosen = comparison.predict(*best, form="additive"), comparison.predict(*best)
    assert forced.half_width() > 3 * chosen.half_width()
    # In sample the wrong form looks fine: that is why in-sample fit never decides.
    assert comparison.fits["additive"].noise < 0.02
    worst = max(abs(row.error) for row in comparison.scores if row.form == "additive")
    assert worst > 0.05


def test_scores_are_by_form_and_reach() -> None:
    comparison = compared(ADDITIVE, 6)
    assert {row.form for row in comparison.scores} == {"minima", "kaplan", "additive", "general", "farseer"}
    assert {row.reach for row in comparison.scores} == {3.2, 10.0, 32.0}
    for row in comparison.scores:
        assert row.score > 0 and 0 <= row.covered <= 1 and row.runs > 0


@pytest.mark.parametrize("budgets", [3, 4])
def test_few_budgets_are_too_few_to_choose_and_the_minima_headline(budgets: int) -> None:
    comparison = compared(ADDITIVE, budgets)
    assert comparison.chosen == TOO_FEW == "not enough budgets to choose"
    assert comparison.headline == "minima"
    assert set(comparison.fits) == {"minima", "kaplan", "additive", "general", "farseer"}
    assert any("too few to choose" in text for text in comparison.warnings)


def test_the_bend_of_the_minima_is_said_in_words() -> None:
    straight = compared(KAPLAN, 6).curvature
    up = compared(ADDITIVE, 6).curvature
    assert straight is not None and "does not bend" in straight.words
    assert up is not None and up.bend > 0 and "bends up" in up.words and "floor" in up.words
    sweep = sweep_of(KAPLAN, 6)
    faster = sweep.loss * np.exp(-0.01 * np.log10(sweep.budgets / 1e11) ** 2)
    down = minima_curvature(fit_isoflop(sweep.params, sweep.tokens, faster, sweep.budgets))
    assert down.bend < 0 and "bends down" in down.words and "repeats" in down.words


def test_repeated_seeds_set_the_least_noise() -> None:
    sweep = sweep_of(ADDITIVE, 3)
    noisy = np.concatenate([sweep.loss, sweep.loss[:7] * 1.03])
    columns = [np.concatenate([column, column[:7]]) for column in (sweep.params, sweep.tokens, sweep.budgets)]
    comparison = compare_forms(columns[0], columns[1], noisy, columns[2], bootstrap=20)
    assert comparison.seed_noise == pytest.approx(np.log(1.03) / np.sqrt(2), rel=1e-6)
    assert all(fitted.noise >= comparison.seed_noise for fitted in comparison.fits.values())


def test_mixed_kinds_widen_the_interval_and_are_named() -> None:
    sweep = sweep_of(ADDITIVE, 4)
    kinds = np.where(np.arange(28) % 2 == 0, "copies", "does not copy")
    loss = np.where(kinds == "copies", sweep.loss * 0.97, sweep.loss)
    mixed = compare_forms(sweep.params, sweep.tokens, loss, sweep.budgets, kinds=kinds, bootstrap=20)
    assert mixed.kind_noise == pytest.approx(0.03 / np.sqrt(2), rel=0.2)
    assert any("different kinds" in text and "copies" in text for text in mixed.warnings)
    assert compared(ADDITIVE, 6).kind_noise == 0


def test_budgets_that_are_hit_nearly_are_one() -> None:
    exact = np.repeat([1e11, 3e11, 1e12], 5)
    assert np.array_equal(group_budgets(exact), exact)
    nearly = exact * np.random.default_rng(0).uniform(0.95, 1.05, 15)
    result = group_budgets(nearly)
    assert len(np.unique(result)) == 3
    assert result == pytest.approx(exact, rel=0.06)
    families = np.tile(exact * np.tile([0.999, 1.0, 1.001, 1.002, 1.003], 3), 3)  # three with the same runs each
    assert len(np.unique(group_budgets(families))) == 3


def test_seed_noise_is_pooled_over_repeats() -> None:
    noise, freedom = seed_noise([1e6, 1e6, 2e6, 2e6, 2e6, 5e6], np.full(6, 1e8), np.exp([0.0, 0.2, 1.0, 1.0, 1.3, 5.0]))
    assert freedom == 3
    assert noise == pytest.approx(np.sqrt((0.02 + 0.06) / 3))
    same = seed_noise(
        [1e6, 1e6, 2e6, 2e6, 2e6], np.full(5, 1e8), np.exp([0.0, 0.2, 1.0, 1.3, 5.0]), seeds=[0, 1, 0, 0, 1]
    )
    assert same == (pytest.approx(np.sqrt(0.02)), 1)  # two of a seed differ in something else: no repeats
    assert seed_noise([1e6, 1e6], [1e8, 1e8], [3.0, 2.0], seeds=[0, 0])[1] == 0
    assert seed_noise([1e6, 2e6], [1e8, 1e8], [3.0, 2.0]) == (pytest.approx(np.nan, nan_ok=True), 0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(LawError, match="No form could be fitted"):
        compare_forms([1e6, 2e6], [1e8, 1e8], [3.0, 2.0], [1e14, 2e14])
    with pytest.raises(LawError, match="form=cubic was not fitted"):
        compared(ADDITIVE, 3).predict(1e6, 1e8, form="cubic")
