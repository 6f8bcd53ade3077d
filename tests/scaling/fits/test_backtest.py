"""Rolling origin of every law on tables whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from maquette.cli import backtest as stage
from maquette.cli.command_line.law_config import BacktestStage
from maquette.scaling import LawError
from maquette.scaling.fits.backtest import FIRST, PREDICTOR, LastTwoBudgets, backtest, backtest_figure
from maquette.scaling.fits.table import RunTable, table_from
from maquette.scaling.laws.runs import Runs
from support.sweeps import TRUTHS, half_decades, isoflop_sweep


def table(form: str, budgets: int, seed: int = 0) -> RunTable:
    sweep = isoflop_sweep(TRUTHS[form], half_decades(1e17, budgets), noise=0.003, sizes=5, seed=seed)
    columns = {"N": sweep.params, "D": sweep.tokens, "C": sweep.budgets, "loss": sweep.loss}
    frame = pd.DataFrame(columns).astype(str)
    return table_from(frame, form, [f"row {i}" for i in range(len(frame))], {})


@pytest.fixture(scope="module")
def result():
    return backtest({form: table(form, 5) for form in ("additive", "general")} | {"short": table("general", FIRST)})


def test_every_law_is_tested_at_every_reach_and_null_laws_stand_beside(result) -> None:
    assert set(result.tables) == {"additive", "general"} and "3 budgets" in result.left_out["short"]
    assert {"predictor", "minima", "farseer", "last two budgets", "additive, Huber"} <= set(result.laws)
    records = {(record.law, record.reach): record for record in result.records()}
    assert {reach for law, reach in records if law == PREDICTOR} == {3.2, 10.0}
    best, null = records[PREDICTOR, 10.0], records["last two budgets", 10.0]
    assert best.tables == 2 and best.median_error < 0.03 and best.inside90 >= 0.5
    assert best.score90 < null.score90
    assert backtest_figure(result).axes


def test_constants_are_learned_leaving_each_table_out(result) -> None:
    assert set(result.constants) == {"in use", "learned", "without additive", "without general"}
    assert all(min(values) > 0 for values in result.constants.values())
    assert list(backtest({"one": table("additive", 4)}).constants) == ["in use"]


def test_the_last_two_budgets_are_a_straight_line() -> None:
    compute = np.repeat([1e15, 1e16, 1e17], 2)
    loss = np.array([4.0, 4.1, 3.0, 3.2, 2.5, 2.4])
    law = LastTwoBudgets(Runs(np.tile([1e6, 2e6], 3), np.ones(6) * 1e8, loss, compute, compute))
    at = np.array([1e18])
    assert np.exp(law.log_loss(at, at, at))[0] == pytest.approx(2.4**2 / 3.0)


def test_no_budget_to_hold_out_is_refused() -> None:
    with pytest.raises(LawError, match="hold out"):
        backtest({"short": table("general", 3)})


def test_the_stage_takes_anybodys_table_apart(tmp_path, capsys) -> None:
    frame = pd.concat([table(form, 4).frame.assign(dataset=form) for form in ("additive", "general")])
    frame.to_csv(tmp_path / "runs.csv", index=False)
    stage.run(BacktestStage(runs=str(tmp_path / "runs.csv"), by="dataset", outputs=str(tmp_path)))
    folder = tmp_path / "backtests" / "runs"
    assert "predictor" in (folder / "index.html").read_text() and (folder / "backtest.json").exists()
    assert "predictor" in capsys.readouterr().out
