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


@pytest.mark.parametrize(("power", "within"), [(2.0, 0.01), (2.5, 0.01), (3.0, 0.02)])
def test_a_plateau_that_is_known_is_not_taken_for_a_bend(power: float, within: float) -> None:
    """Its own form, and ones that give way less and more sharply."""
    law = LossSurface(E=1.5, A=300.0, B=600.0, alpha=0.32, beta=0.34)
    plain = isoflop_sweep(law, np.geomspace(1e12, 1e14, 5), seed=0)
    loss = (plain.loss**-power + 7.0**-power) ** (-1 / power)
    at = law.optimal(1e16)
    truth = (law.loss(*at) ** -power + 7.0**-power) ** (-1 / power)
    errors = []
    for entropy in (7.0, None):
        predictor = fit_predictor(
            plain.params, plain.tokens, loss, budgets=plain.budgets, unigram_entropy=entropy
        )  # fmt: skip
        errors.append(abs(predictor.predict(*at).loss / truth - 1))
    assert errors[0] < within and errors[0] < errors[1] / 5


def test_what_cannot_be_fitted_is_refused(predictor: Predictor) -> None:
    with pytest.raises(LawError, match="too few"):
        fit_predictor([1e6, 2e6], [1e8, 1e8], [3.0, 2.0])
    with pytest.raises(LawError, match="loss"):
        fit_predictor([1e6] * 5, [1e8] * 5, [3.0, 2.0, np.nan, 2.0, 2.0])
    with pytest.raises(LawError, match="tokens"):
        predictor.predict(1e6, -1.0)


class Additive:
    """A stranger's form, and the truth of some tables here."""

    parameters = {  # noqa: RUF012
        "E": (0.0, 3.0), "A": (1.0, 1e5), "alpha": (0.05, 1.0), "B": (1.0, 1e5), "beta": (0.05, 1.0),
    }  # fmt: skip

    def loss(self, params, tokens, *, E, A, alpha, B, beta):  # noqa: N803
        return E + A / params**alpha + B / tokens**beta


class Flat:
    name = "flat"
    parameters = {"E": (0.1, 10.0)}  # noqa: RUF012

    def loss(self, params, tokens, *, E):  # noqa: N803
        return E + 0 * params * tokens


def test_a_strangers_form_takes_part_and_has_one_interval() -> None:
    sweep = isoflop_sweep(TRUTHS["additive"], np.geomspace(1e17, 1e20, 7), noise=0.0005, seed=3)
    predictor = fit_predictor(
        sweep.params, sweep.tokens, sweep.loss, budgets=sweep.budgets, forms=[Additive, Flat()]
    )  # fmt: skip
    at = TRUTHS["additive"].optimal(1e21)
    assert predictor.form in ("plateau", "Additive")
    assert predictor.predict(*at) == predictor.predict(*at, form=predictor.form)
    own, flat = predictor.predict(*at, form="Additive"), predictor.predict(*at, form="flat")
    assert own.loss == pytest.approx(TRUTHS["additive"].loss(*at), rel=0.01)
    assert flat.half_width() > 5 * own.half_width()
    with pytest.raises(LawError, match="cubic"):
        predictor.predict(*at, form="cubic")


def ladder(truth: LossSurface, sizes: list[float], multiples: list[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Sizes x multiples of 20 tokens a parameter."""
    params, times = (axis.ravel() for axis in np.meshgrid(sizes, multiples))
    tokens = 20 * params * times
    return (
        params,
        tokens,
        truth.loss(params, tokens) * np.exp(0.003 * np.random.default_rng(seed).standard_normal(len(params))),
    )


@pytest.mark.parametrize("multiple", [1.0, 32.0])
def test_a_ladder_predicts_overtrained_models_from_overtrained_ones(multiple: float) -> None:
    truth = TRUTHS["general"]
    predictor = fit_predictor(*ladder(truth, [11e6, 79e6, 154e6, 411e6], [0.25, 0.5, 1, 2, 4, 8, 16, 32]))
    at = 6.9e9, 6.9e9 * 20 * multiple
    forecast = predictor.predict(*at)
    assert forecast.loss == pytest.approx(truth.loss(*at), rel=0.015)
    low, high = forecast.intervals[0.9]
    assert low < truth.loss(*at) < high
    weights = predictor.surface.weights(*(np.array([value]) for value in (*at, 6 * at[0] * at[1])))[0]
    alike = np.abs(np.log(predictor.runs.tokens / predictor.runs.params / 20 / multiple)) < np.log(5)
    assert weights[alike].mean() > 2 * weights[~alike].mean()


def test_no_minima_are_told_and_the_best_size_is_uncertain() -> None:
    params, tokens, loss = ladder(TRUTHS["general"], [1e7, 1e8], [1.0, 4.0])
    predictor = fit_predictor(params, tokens, loss)
    assert any("has a minimum inside" in text for text in predictor.warnings)
    best, (low, high) = predictor.best_size(1e19)
    assert low < best < high and high / low > 3


@pytest.mark.slow(reason="fits two hundred tables with their rolling origins")
@pytest.mark.parametrize("form", TRUTHS)
def test_intervals_hold_on_simulated_tables_also_where_the_law_is_another(form: str) -> None:
    truth, inside = TRUTHS[form], {0.5: [], 0.9: []}
    at = truth.optimal(1e20)
    for seed in range(70):
        sweep = isoflop_sweep(truth, BUDGETS, noise=0.004, seed=seed)
        observed = truth.loss(*at) * np.exp(0.004 * np.random.default_rng(1000 + seed).standard_normal())
        predictor = fit_predictor(sweep.params, sweep.tokens, sweep.loss, budgets=sweep.budgets)
        forecast = predictor.predict(*at)
        for level, held in inside.items():
            low, high = forecast.intervals[level]
            held.append(low <= observed <= high)
    # Near the priors intervals are wider than clean tables need: they are made for real ones. Kaplan's law has no floor
    # and a gamma of .095, three deviations off: it is predicted some 2% too high.
    least = {"kaplan": (0.5, 0.0)}.get(form, (0.85, 0.4))
    assert np.mean(inside[0.9]) >= least[0] and np.mean(inside[0.5]) >= least[1]
