"""Everything from one table: the form by extrapolation, too few budgets, confounders, and plain values."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from maquette.reports import render
from maquette.scaling.fits.confounders import copying_kinds, find_confounders
from maquette.scaling.fits.fit_card import UNKNOWN, FitCard
from maquette.scaling.fits.fit_facts import exponent_table, fit_facts, forecasts, form_table, headline
from maquette.scaling.fits.sweep_fit import SweepFit, fit_sweep
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.runs import LawError, group_budgets
from support.sweeps import TRUTHS, half_decades, isoflop_sweep


def table(budgets: int, *, form: str = "kaplan", **more: object) -> RunTable:
    sweep = isoflop_sweep(TRUTHS[form], half_decades(1e17, budgets), noise=0.002, sizes=5)
    count = len(sweep.params)
    return RunTable(
        source="a sweep", names=tuple(f"r{i}" for i in range(count)), params=sweep.params, tokens=sweep.tokens,
        loss=sweep.loss, compute=sweep.budgets, budget=group_budgets(sweep.budgets),
        frame=pd.DataFrame({"model.num_hidden_layers": np.arange(count) % 3 + 2, "steps": sweep.tokens / 512}),
        core=0.8 * sweep.params**1.01 / 1.5, **more,
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture(scope="module")
def five() -> SweepFit:
    return fit_sweep(table(5), bootstrap=100)


def test_five_budgets_choose_and_the_truth_lies_where_it_says(five: SweepFit) -> None:
    truth = TRUTHS["kaplan"]
    assert five.form == "plateau" and five.comparison.chosen != "additive"
    beyond = 1e20
    best = five.best(beyond)
    assert best.params == pytest.approx(truth.optimal(beyond).params, rel=0.2)
    forecast = five.predict(*truth.optimal(beyond), compute=beyond)
    (low, high), (half_low, half_high) = forecast.intervals[0.9], forecast.intervals[0.5]
    assert low < half_low < half_high < high and low < truth.loss(*truth.optimal(beyond)) < high
    assert set(five.isoflop) == {"parabola", "akima"} and five.envelope is not None
    assert five.isoflop["parabola"].exponent == pytest.approx(truth.exponent, abs=0.03)
    assert {"L(C)", "L(N)", "L(D) with a floor"} <= set(five.power_laws)
    assert five.kaplan is not None and five.kaplan.exponent is not None


def test_the_facts_are_plain_and_say_it_all(five: SweepFit) -> None:
    facts = json.loads(json.dumps(fit_facts(five), allow_nan=False))
    assert facts["form"] == five.form and f"C^{five.predictor.size_line.exponent:.3f}" in facts["headline"]
    assert [row["reach"] for row in facts["forecasts"] if row["form"] == "additive"] == [1, 10, 100]
    for row in facts["forecasts"]:
        assert row["interval90"][0] < row["interval50"][0] < row["loss"] < row["interval50"][1] < row["interval90"][1]
    assert len(facts["surfaces"]["additive"]["residuals"]) == facts["runs"] == 25
    assert len(form_table(facts)[1]) == 6 and len(exponent_table(facts)[1]) >= 7


def test_three_budgets_are_too_few_and_a_forced_form_is_told_its_cost() -> None:
    fit = fit_sweep(table(3), form="additive", bootstrap=100)
    assert fit.comparison.chosen == "not enough budgets to choose" and fit.forced and fit.form == "additive"
    assert fit.comparison.headline == "minima"
    assert any("additive was forced" in words and "out-of-sample score" in words for words in fit.warnings)
    assert any("too few to choose" in words for words in fit.warnings)
    assert "which was forced" in fit_facts(fit)["headline"]
    free = fit_sweep(table(3), bootstrap=100)
    assert free.form == "plateau" and free.predict(1e9, 2e10, form="additive") == fit.predict(1e9, 2e10)


def test_what_can_not_be_fitted_says_why() -> None:
    line = table(5)
    one_size = line.take(np.arange(len(line)) % 5 == 2)
    fit = fit_sweep(one_size, bootstrap=100)
    assert not fit.isoflop and "inside of its grid" in fit.missing["isoflop by parabola"]
    with pytest.raises(LawError, match="form=minima can't be fitted"):
        fit_sweep(one_size, form="minima", bootstrap=100)


def test_confounders_are_ranges_and_tests() -> None:
    runs = table(5)
    score = np.linspace(0, 0.9, len(runs))
    frame = runs.frame.assign(**{"epochs/code": 0.4, "epochs/docs": 2.0, "train/loss": runs.loss - 0.1})
    runs = dataclasses.replace(runs, copying=score, frame=frame)
    held_out = {"window": 32, "domains": {"code": {"validation": {
        "windows": 100, "seen_share_before": 0.18, "seen_share_after": 0.0}}}}  # fmt: skip
    confounders = {s.name: s for s in find_confounders(runs, score - score.mean(), {"held_out": held_out})}
    assert (
        confounders["copying"].alarming
        and "copy from their context and the others do not yet" in confounders["copying"].words
    )
    assert confounders["copying"].p_value < 1e-6
    assert confounders["epochs"].alarming and confounders["epochs"].range == (0.4, 2.0)
    assert "18.0%" in confounders["repetition of the corpus"].words and confounders["repetition of the corpus"].alarming
    assert not confounders["gap"].alarming
    assert not confounders["layers"].alarming and "do not go with the layers" in confounders["layers"].words
    assert find_confounders(table(3), np.zeros(15))[0].name == "layers"


def test_kinds_by_copying() -> None:
    kinds = copying_kinds(np.array([0.0, 0.01, 0.6]))
    assert kinds is not None and kinds.tolist() == ["does not copy yet", "does not copy yet", "copies"]
    assert copying_kinds(np.array([0.0, 0.01])) is None and copying_kinds(None) is None


def test_the_card_answers_from_what_was_recorded(five: SweepFit) -> None:
    text = render("fit_card.html.j2", {"card": FitCard(five), "versions": "numpy 1.2.3"})
    answers = dict(re.findall(r'<th role="rowheader" scope="row">(.*?)</th><td.*?>(.*?)</td>', text))
    assert "numpy 1.2.3" in answers["Which versions?"]
    assert answers["Which optimiser?"].startswith("batched Gauss-Newton")
    assert answers["Which schedule?"] == UNKNOWN
    assert "2 to 4" in answers["How are width and depth chosen?"]
    assert answers["Which runs were left out, and why?"] == "none"


def test_a_fit_that_determines_nothing_says_so_instead_of_a_number(
    five: SweepFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "expect a loss of" in headline(five)
    rows = [{**row, "interval90": [0.0, 1e200]} for row in forecasts(five)]
    monkeypatch.setattr("maquette.scaling.fits.fit_facts.forecasts", lambda fit: rows)
    assert "do not determine the loss" in headline(five) and len(headline(five)) < 400
