"""The predictor on tables whose truth is known: well and badly specified, grids and ladders."""

import numpy as np
import pytest

from maquette.scaling import LawError, LossSurface, Predictor, fit_predictor
from support.sweeps import TRUTHS, isoflop_sweep

BUDGETS = np.geomspace(1e17, 1e19, 5)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    sweep = isoflop_sweep(TRUTHS["general"], BUDGETS, noise=0.003, seed=1)
    return fit_predictor(sweep.params, sweep.tokens, sweep.loss, budgets=sweep.budgets)


@pytest.mark.parametrize("form", TRUTHS)
def test_ten_times_the_largest_budget_is_predicted(form: str) -> None:
    truth = TRUTHS[form]
    sweep = isoflop_sweep(truth, BUDGETS, noise=0.003, seed=2)
    predictor = fit_predictor(sweep.params, sweep.tokens, sweep.loss, budgets=sweep.budgets)
    at = truth.optimal(1e20)
    forecast = predictor.predict(at.params, at.tokens)
    assert forecast.loss == pytest.approx(truth.loss(*at), rel=0.03)
    params, (least, most) = predictor.best_size(1e20)
    assert least < at.params < most and params == pytest.approx(at.params, rel=0.5)


def test_arrays_give_what_numbers_give(predictor: Predictor) -> None:
    sizes, tokens = np.array([[1e9], [4e9]]), np.array([2e9, 8e9, 3e10])
    together = predictor.predict(sizes, tokens, levels=(0.5, 0.8))
    assert together.loss.shape == together.reach.shape == together.intervals[0.8][0].shape == (2, 3)
    alone = predictor.predict(4e9, 8e9, levels=(0.5, 0.8))
    assert isinstance(alone.loss, float) and alone.loss == pytest.approx(together.loss[1, 1])
    assert alone.intervals[0.8] == pytest.approx([end[1, 1] for end in together.intervals[0.8]])
    assert set(alone.intervals) == {0.5, 0.8}
    best, (low, high) = predictor.best_size(np.array([1e19, 1e20]))
    assert np.all((low < best) & (best < high)) and best.shape == (2,)


def test_errors_are_told_in_compute(predictor: Predictor) -> None:
    at = TRUTHS["general"].optimal(1e20)
    forecast = predictor.predict(*at)
    dearer = predictor.predict(at.params * 2**0.5, at.tokens * 2**0.5)
    assert forecast.compute_factor(dearer.loss) == pytest.approx(2, rel=0.1)
    assert "of the loss, as much as" in forecast.words() and "times the compute" in forecast.words()


def test_a_plateau_that_is_known_is_not_taken_for_a_bend() -> None:
    law = LossSurface(E=1.5, A=300.0, B=600.0, alpha=0.32, beta=0.34)
    plain = isoflop_sweep(law, np.geomspace(1e12, 1e14, 5), seed=0)
    loss = (plain.loss**-3.0 + 7.0**-3.0) ** (-1 / 3)
    at = law.optimal(1e16)
    truth = (law.loss(*at) ** -3.0 + 7.0**-3.0) ** (-1 / 3)
    errors = []
    for entropy in (7.0, None):
        predictor = fit_predictor(
            plain.params, plain.tokens, loss, budgets=plain.budgets, unigram_entropy=entropy
        )  # fmt: skip
        errors.append(abs(predictor.predict(*at).loss / truth - 1))
    assert errors[0] < 0.02 and errors[0] < errors[1]


def test_what_cannot_be_fitted_is_refused(predictor: Predictor) -> None:
    with pytest.raises(LawError, match="too few"):
        fit_predictor([1e6, 2e6], [1e8, 1e8], [3.0, 2.0])
    with pytest.raises(LawError, match="loss"):
        fit_predictor([1e6] * 5, [1e8] * 5, [3.0, 2.0, np.nan, 2.0, 2.0])
    with pytest.raises(LawError, match="tokens"):
        predictor.predict(1e6, -1.0)
