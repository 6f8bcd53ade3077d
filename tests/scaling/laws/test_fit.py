"""Fitting surfaces: exact recovery, agreement with SciPy, refusals and warnings."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from maquette.artifacts import ConfigError, MaquetteError
from maquette.scaling import LawError, LossSurface, fit_surface
from maquette.scaling.laws.forms import FORMS, SurfaceModel, coordinates, non_negative_least_squares
from maquette.scaling.laws.gauss_newton import minimise
from support.sweeps import TRUTHS, isoflop_sweep

BUDGETS = np.geomspace(1e17, 1e20, 5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["least_squares", "huber", "lad"])
def test_every_form_is_recovered_exactly_without_noise(form: str, method: str) -> None:
    truth = TRUTHS[form]
    sweep = isoflop_sweep(truth, BUDGETS)
    fit = fit_surface(*sweep[:3], form=form, method=method)
    for name in FORMS[form]:
        assert getattr(fit.surface, name) == pytest.approx(getattr(truth, name), rel=2e-3), name
    assert np.abs(fit.residuals).max() < 1e-5
    assert fit.warnings == ()


def test_least_squares_is_least() -> None:
    sweep = isoflop_sweep(TRUTHS["additive"], BUDGETS, noise=0.01, seed=1)
    fit = fit_surface(*sweep[:3])

    def law(x: np.ndarray, floor: float, a: float, b: float, alpha: float, beta: float) -> np.ndarray:
        return floor + np.exp(a - alpha * np.log(x[0])) + np.exp(b - beta * np.log(x[1]))

    start = (1.8, np.log(480), np.log(2100), 0.35, 0.37)
    result, _ = curve_fit(law, np.stack(sweep[:2]), sweep.loss, start, maxfev=20_000, xtol=1e-12, ftol=1e-12)
    assert (fit.surface.E, fit.surface.alpha, fit.surface.beta) == pytest.approx(result[[0, 3, 4]], rel=1e-4)


def test_one_batch_gives_what_single_fits_give() -> None:
    sweep = isoflop_sweep(TRUTHS["additive"], BUDGETS, noise=0.005)
    model = SurfaceModel.over("additive", sweep.params, sweep.tokens, logarithmic=True)
    start = coordinates(model, TRUTHS["additive"])
    weights = np.random.default_rng(0).multinomial(35, np.full(35, 1 / 35), size=4).astype(float)
    target = np.log(sweep.loss)
    together = minimise(model, np.repeat(start[None], 4, axis=0), target, weights, delta=1e-3)
    assert together.converged.all()
    for row, result in zip(weights, together.theta, strict=True):
        alone = minimise(model, start[None], target, row, delta=1e-3)
        assert result == pytest.approx(alone.theta[0], abs=1e-7)


@pytest.mark.parametrize("form", FORMS)
def test_derivatives_are_those_of_the_predictions(form: str) -> None:
    truth = TRUTHS[form]
    sweep = isoflop_sweep(truth, BUDGETS)
    for logarithmic in (False, True):
        model = SurfaceModel.over(form, sweep.params, sweep.tokens, logarithmic=logarithmic)
        theta = coordinates(model, truth)
        prediction, jacobian = model.predict(theta[None])
        expected = np.log(sweep.loss) if logarithmic else sweep.loss
        assert prediction[0] == pytest.approx(expected)
        for index in range(len(theta)):
            step = 1e-6 * np.eye(len(theta))[index]
            difference = (model.predict((theta + step)[None])[0] - model.predict((theta - step)[None])[0])[0] / 2e-6
            assert jacobian[0, index] == pytest.approx(difference, abs=1e-6)


def test_non_negative_least_squares_agrees_with_scipy() -> None:
    from scipy.optimize import nnls

    generator = np.random.default_rng(0)
    basis, target = generator.standard_normal((50, 3, 8)), generator.standard_normal((50, 8))
    weights = generator.uniform(0.5, 2, size=(50, 8))
    result = non_negative_least_squares(basis, target, weights)
    for one, goal, weight, ours in zip(basis, target, weights, result, strict=True):
        expected, _ = nnls(one.T * np.sqrt(weight)[:, None], goal * np.sqrt(weight))
        assert ours == pytest.approx(expected, abs=1e-9)


def test_both_bootstraps_see_the_noise_that_is_there() -> None:
    widths = {}
    for noise in (0.002, 0.008):
        sweep = isoflop_sweep(TRUTHS["additive"], BUDGETS, noise=noise)
        for resample in ("cases", "residuals"):
            fit = fit_surface(*sweep[:3], bootstrap=200, resample=resample)
            assert fit.noise == pytest.approx(noise, rel=0.35)
            widths[resample, noise] = fit.interval["alpha"].width
    for resample in ("cases", "residuals"):
        assert 2.5 < widths[resample, 0.008] / widths[resample, 0.002] < 6


def test_the_seed_decides_the_intervals_and_nothing_else_does() -> None:
    sweep = isoflop_sweep(TRUTHS["additive"], BUDGETS, noise=0.005)
    first, again, other = (fit_surface(*sweep[:3], bootstrap=50, seed=seed) for seed in (1, 1, 2))
    assert first.interval == again.interval
    assert first.interval != other.interval and first.surface == other.surface


def test_predictions_carry_intervals() -> None:
    truth = TRUTHS["additive"]
    sweep = isoflop_sweep(truth, BUDGETS, noise=0.003)
    fit = fit_surface(*sweep[:3], bootstrap=300)
    best = truth.optimal(1e21)
    half, most = fit.predict(*best, level=0.5), fit.predict(*best)
    assert most.interval.low < half.interval.low < half.loss < half.interval.high < most.interval.high
    assert most.interval.contains(truth.loss(*best))
    assert fit.interval_of(lambda s: s.optimal(1e21).params).contains(best.params)
    with pytest.raises(LawError, match="bootstrap=1000"):
        fit_surface(*sweep[:3]).predict(*best)


def good(**changes: object) -> dict[str, object]:
    """Arguments of a fit that is fine, with `changes`."""
    sweep = isoflop_sweep(TRUTHS["additive"], BUDGETS)
    return {"params": sweep.params, "tokens": sweep.tokens, "loss": sweep.loss, **changes}


def with_row(column: str, value: float) -> dict[str, object]:
    """The same, with one number replaced."""
    arguments = good()
    changed = np.array(arguments[column])
    changed[4] = value
    return {**arguments, column: changed}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (with_row("loss", np.nan), "loss is nan in row 4"),
        (with_row("loss", -3.0), "loss is -3 in row 4"),
        (with_row("params", np.inf), "params is inf in row 4"),
        (with_row("tokens", 0.0), "tokens is 0 in row 4"),
        (good(loss=np.ones(3)), "different lengths"),
        (good(loss=["a"] * 35), "not made of numbers"),
        (good(loss=np.ones((35, 1))), "shape"),
        (good(params=np.full(35, 1e8)), "1 distinct sizes"),
        (good(tokens=np.full(35, 1e8)), "1 distinct token counts"),
        ({"params": [1e6, 1e7, 1e8], "tokens": [1e8, 1e9, 1e7], "loss": [4.0, 3.0, 3.5]}, "3 runs can't determine 5"),
        (good(form="quadratic"), "form=quadratic"),
        (good(method="magic"), "method=magic"),
        (good(method="huber", delta=0.0), "delta=0"),
        (good(method="lad", delta=0.1), "has no effect on method=lad"),
        (good(bootstrap=3), "3 resamples are too few"),
        (good(bootstrap=100, resample="pairs"), "resample=pairs"),
        (good(bootstrap=100, level=90), "coverage"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_words(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_surface(**arguments)


def test_refusals_are_value_errors_too() -> None:
    with pytest.raises(ValueError):
        fit_surface(**with_row("loss", np.nan))
    assert issubclass(LawError, MaquetteError)


def test_what_a_reader_must_know_is_said() -> None:
    truth = TRUTHS["additive"]
    lone = isoflop_sweep(truth, np.array([1e19]), sizes=9)
    assert any("one compute" in text for text in fit_surface(*lone[:3]).warnings)
    no_floor = isoflop_sweep(LossSurface(0, 480, 2100, 0.35, 0.37), BUDGETS, noise=0.01, seed=3)
    assert any("E came out as 0" in text for text in fit_surface(*no_floor[:3]).warnings)
    sweep = isoflop_sweep(truth, BUDGETS, noise=0.002)
    spoiled = sweep.loss.copy()
    spoiled[10] *= 1.2
    warning = " ".join(fit_surface(sweep.params, sweep.tokens, spoiled, method="lad").warnings)
    assert f"N={sweep.params[10]:.3g}" in warning and "+19.9%" in warning
    five = slice(0, 35, 7)
    exact = fit_surface(sweep.params[five], np.geomspace(1e9, 1e8, 5), sweep.loss[five], bootstrap=100)
    assert any("as many runs as parameters" in text for text in exact.warnings)
    assert exact.interval["alpha"] == (-np.inf, np.inf)


def test_one_far_run_moves_squares_and_not_deviations() -> None:
    sweep = isoflop_sweep(TRUTHS["additive"], BUDGETS, noise=0.002)
    spoiled = sweep.loss.copy()
    spoiled[3] *= 1.3
    off = {
        method: abs(fit_surface(sweep.params, sweep.tokens, spoiled, method=method).surface.alpha - 0.35)
        for method in ("least_squares", "huber", "lad")
    }
    assert off["huber"] < off["least_squares"] / 3
    assert off["lad"] < off["least_squares"] / 3
