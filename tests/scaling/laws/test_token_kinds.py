"""The loss by kind of token, on this project's own runs to 1e14 FLOPs: before copying sets in, and after."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maquette.scaling import LawError, fit_kinds, fit_predictor

SWEEP = pd.read_csv(Path(__file__).parents[3] / "notebooks" / "data" / "sweep.csv").astype({"budget": float})
KINDS = ("new", "hit", "miss")


def fitted(runs):
    return fit_kinds(
        runs.params, runs.tokens, {kind: runs[f"code_{kind}"] for kind in KINDS}, runs.loss, runs.compute,
        budgets=runs.budget, copying=runs.copying_score, unigram_entropy=6.1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def before():
    return fitted(SWEEP[SWEEP.budget <= 1e13])


def test_across_the_onset_new_tokens_and_misses_go_on_and_the_total_is_not_missed(before) -> None:
    run = SWEEP[SWEEP.budget == 1e14].iloc[0]
    total, kinds = before.predict(run.params, run.tokens, run.compute)
    for kind in ("new", "miss"):
        assert kinds[kind].loss == pytest.approx(run[f"code_{kind}"], rel=0.03)
    for forecast, observed in ((kinds["hit"], run.code_hit), (total, run.loss)):
        low, high = forecast.intervals[0.9]
        assert low < observed < high
    alone = fit_predictor(
        *(SWEEP[SWEEP.budget <= 1e13][name] for name in ("params", "tokens", "loss", "compute")),
        budgets=SWEEP.budget[SWEEP.budget <= 1e13], unigram_entropy=6.1,
    ).predict(run.params, run.tokens, run.compute)  # fmt: skip
    assert abs(total.loss / run.loss - 1) < abs(alone.loss / run.loss - 1)


def test_the_score_announces_the_onset_in_tokens_seen(before) -> None:
    assert before.score(18e6) == pytest.approx(0.147, rel=0.5)
    assert before.score(1e12) <= 0.5


def test_the_interval_of_the_total_reaches_lower_before_the_onset_and_not_after() -> None:
    runs = SWEEP[SWEEP.budget <= 1e13]
    at = (8e5, 1.8e7, 1e14)
    for scores, wider in ((runs.copying_score, True), (np.full(len(runs), 0.3), False)):
        plain, warned = (
            fit_predictor(
                runs.params,
                runs.tokens,
                runs.loss,
                runs.compute,
                budgets=runs.budget,
                unigram_entropy=6.1,
                copying=copying,
            ).predict(*at)
            for copying in (None, scores)
        )
        assert warned.loss == plain.loss and warned.intervals[0.9][1] == plain.intervals[0.9][1]
        assert (warned.intervals[0.9][0] < plain.intervals[0.9][0]) == wider
        assert any("Copying" in text for text in warned.warnings) == wider


def test_a_kind_that_is_not_there_is_named() -> None:
    with pytest.raises(LawError, match="hit"):
        fit_kinds([1.0], [1.0], {"new": [1.0]}, [1.0])
