"""A form of law that a user wrote takes part in the comparison, and a mistake in it is named."""

import sys

import numpy as np
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.scaling import LawError, LossSurface, compare_forms
from maquette.scaling.laws.custom_form import custom_form, fit_custom
from maquette.scaling.laws.extrapolation import TOO_FEW
from support.sweeps import half_decades, isoflop_sweep

TRUTH = LossSurface(E=1.2, A=60, B=160, alpha=0.3, beta=0.3)


class TwoPowers:
    """The additive law, as a user would write it."""

    formula = "L = E + A/N^alpha + B/D^beta"
    parameters = {  # noqa: RUF012
        "E": (0, 5), "A": (1e-2, 1e6), "alpha": (0.01, 3), "B": (1e-2, 1e6), "beta": (0.01, 3),
    }  # fmt: skip

    def loss(self, N, D, *, E, A, alpha, B, beta):  # noqa: N803
        return E + A / N**alpha + B / D**beta


class DataOnly:
    name = "data only"
    parameters = {"B": (1e-2, 1e6), "beta": (0.01, 3)}  # noqa: RUF012

    def loss(self, params, tokens, B, beta):  # noqa: N803
        return B / tokens**beta + 0 * params


def sweep(noise=0.003):
    return isoflop_sweep(TRUTH, half_decades(1e11, 6), width=5, noise=noise)


def test_without_noise_the_parameters_come_back():
    result = sweep(noise=0.0)
    fit = fit_custom(custom_form(TwoPowers), result.params, result.tokens, result.loss, bootstrap=100)
    for name in TwoPowers.parameters:
        assert fit.parameters[name] == pytest.approx(getattr(TRUTH, name), rel=1e-3)
    best = TRUTH.optimal(6 * 1e15)
    assert fit.best_params(1e15, 2 * best.params) == pytest.approx(best.params, rel=1e-2)
    assert fit.exponent(1e15, best.params, 0.9)[0] == pytest.approx(TRUTH.exponent, abs=1e-3)


def test_ones_own_form_is_compared_like_ours():
    result = sweep()
    comparison = compare_forms(*result, forms=[TwoPowers, DataOnly()], bootstrap=40)
    assert {"TwoPowers", "data only", "additive"} <= set(comparison.fits)
    # It is the additive law: out of sample it must do as well, and a law that ignores the size far worse.
    assert comparison.overall["TwoPowers"] == pytest.approx(comparison.overall["additive"], rel=0.15)
    assert comparison.overall["data only"] > 5 * comparison.overall["TwoPowers"]
    best = TRUTH.optimal(10 * comparison.largest_budget)
    ours, own = comparison.predict(*best, form="additive"), comparison.predict(*best, form="TwoPowers")
    assert own.loss == pytest.approx(ours.loss, rel=5e-3)
    assert own.half_width() == pytest.approx(ours.half_width(), rel=0.35)
    assert comparison.predict(*best, form=f"{__name__}:TwoPowers") == own
    without = compare_forms(*result, bootstrap=40)
    assert without.overall == {name: comparison.overall[name] for name in without.overall}


def test_what_is_not_a_form_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_law_forms.py").write_text(
        "class Bad:\n    parameters = {'A': (1, 2)}\n    def loss(self, N, D, A):\n        return undefined\n"
        "class Empty:\n    pass\n"
        "class Bounds:\n    parameters = {'A': (2, 1)}\n    def loss(self, N, D, A):\n        return A\n"
        "class Shape:\n    parameters = {'A': (1, 2)}\n    def loss(self, N, D, A):\n        return A.ravel()\n"
    )
    monkeypatch.chdir(tmp_path)
    columns = sweep()
    with pytest.raises(StageError, match=r"my_law_forms:Bad.loss failed at .*my_law_forms.py:4.*undefined"):
        compare_forms(*columns, forms=["my_law_forms:Bad"], bootstrap=40)
    with pytest.raises(LawError, match="my_law_forms:Empty is not a form"):
        custom_form("my_law_forms:Empty")
    with pytest.raises(LawError, match="bounds of A"):
        custom_form("my_law_forms:Bounds")
    shape = custom_form("my_law_forms:Shape")
    with pytest.raises(LawError, match=r"\(3,\)"):
        shape.losses(np.ones(2), np.ones(2), np.ones((3, 1)))
    with pytest.raises(ConfigError, match="Emty"):
        custom_form("my_law_forms:Emty")
    with pytest.raises(LawError, match="Two forms are called"):
        compare_forms(*columns, forms=[TwoPowers, TwoPowers()], bootstrap=40)
    sys.modules.pop("my_law_forms", None)


def test_where_none_can_be_chosen_ones_own_form_does_not_lead():
    few = isoflop_sweep(TRUTH, half_decades(1e11, 3), width=5, noise=0.003)
    edge = [column.reshape(3, 7)[:, 5:].ravel() for column in map(np.asarray, few)]  # no budget shows its minimum
    comparison = compare_forms(*edge, forms=[DataOnly()], bootstrap=40)
    assert "minima" not in comparison.fits
    assert comparison.chosen == TOO_FEW and comparison.headline != "data only" and "data only" in comparison.fits
