"""The loss by kind of token, on this project's own runs to 1e14 FLOPs: before copying sets in, and after."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from maquette.scaling import LawError, LossSurface, fit_kinds, fit_predictor
from maquette.scaling.laws.forecast import FLOOR, FREEDOM, SHARE, Extrapolated, make_forecast
from maquette.scaling.laws.regimes import Onset
from maquette.scaling.laws.token_kinds import ONSET, _with_onset
from support.sweeps import Sweep, isoflop_sweep

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


def test_an_interval_without_ends_in_a_float_warns_of_nothing() -> None:
    """Its low end is 0 and its high end infinite; what else is there is as ever."""

    def law(params: np.ndarray, tokens: np.ndarray, compute: np.ndarray) -> Extrapolated:
        count = np.ones(len(params))
        return Extrapolated(np.log(2.0) * count, np.array([0.01, 1e4]), 0.0 * count, 0.0 * count, 0.0 * count)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast = make_forecast(law, [1e6, 1e6], 1e8, 6e14, width=1.0, levels=[0.9])
        (low, high) = forecast.intervals[0.9]
        lower = _with_onset(forecast, Onset(per_decade=1.0, after=0.0))
    assert forecast.loss == pytest.approx([2.0, 2.0]) and high[1] == np.inf and low[1] == 0.0
    half = t.ppf(0.95, FREEDOM) * np.hypot(FLOOR, SHARE * 0.01)
    assert (low[0], high[0]) == pytest.approx((2 * np.exp(-half), 2 * np.exp(half)))
    assert lower.intervals[0.9][0] == pytest.approx(low) and lower.intervals[0.9][1] is high


def test_a_kind_that_is_not_there_is_named() -> None:
    with pytest.raises(LawError, match="hit"):
        fit_kinds([1.0], [1.0], {"new": [1.0]}, [1.0])


KIND_LAWS = {
    "new": LossSurface(E=1.4, A=110, B=240, alpha=0.36, beta=0.36, gamma=0.8),
    "hit": LossSurface(E=0.5, A=200, B=420, alpha=0.4, beta=0.4, gamma=0.8),
    "miss": LossSurface(E=1.8, A=80, B=170, alpha=0.33, beta=0.33, gamma=0.8),
}
SHARES = {"new": 0.55, "hit": 0.3, "miss": 0.15}


def score(tokens: np.ndarray) -> np.ndarray:
    """Copying sets in around 4e7 tokens."""
    return 0.5 / (1 + (4e7 / tokens) ** 1.6)


def synthetic(budgets: np.ndarray, sizes: int, noise: float) -> tuple[Sweep, dict[str, np.ndarray], np.ndarray]:
    """Runs of three kinds of token of which the hits fall with the copying score; their losses, and the total."""
    sweep = isoflop_sweep(KIND_LAWS["new"], budgets, sizes=sizes, width=2.5 if sizes > 1 else 1)
    numbers = np.random.default_rng(len(budgets))
    losses = {
        kind: law.loss(sweep.params, sweep.tokens) * np.exp(noise * numbers.standard_normal(len(sweep.params)))
        for kind, law in KIND_LAWS.items()
    }
    losses["hit"] = losses["hit"] * np.exp(-ONSET * score(sweep.tokens))
    return sweep, losses, sum(SHARES[kind] * loss for kind, loss in losses.items())


@pytest.mark.parametrize(("first", "place"), [(11, "before"), (12, "across"), (14, "after")])
def test_a_known_onset_is_predicted_on_both_sides(first: int, place: str) -> None:
    budgets = 10 ** (first + 0.5 * np.arange(5))
    sweep, losses, total = synthetic(budgets, 5, 0.002)
    copying = score(sweep.tokens)
    kinds = fit_kinds(
        sweep.params, sweep.tokens, losses, total, shares=SHARES, budgets=sweep.budgets, copying=copying
    )  # fmt: skip
    alone = fit_predictor(sweep.params, sweep.tokens, total, budgets=sweep.budgets)
    target, parts, (truth,) = synthetic(budgets[-1:] * 10, 1, 0.0)
    forecast, by_kind = kinds.predict(target.params, target.tokens)
    low, high = forecast.intervals[0.9]
    middle, plain = (float(one.loss[0]) for one in (forecast, alone.predict(target.params, target.tokens)))
    assert low[0] < truth < high[0]
    assert abs(middle / truth - 1) < min(0.02, abs(plain / truth - 1))
    for kind in ("new", "miss"):
        assert by_kind[kind].loss[0] == pytest.approx(parts[kind][0], rel=0.01)
    # Before the onset the interval reaches lower than it reaches up; after it, it does not.
    assert (np.log(middle / low[0]) > 1.4 * np.log(high[0] / middle)) == (place != "after")
    assert kinds.leads == (kinds.score_now >= 0.01)


def test_scores_between_the_budgets_are_read_off_and_carried_on_beyond(before) -> None:
    (_, lower), (seen, now) = before.scores[-2:]
    assert before.score(seen) == pytest.approx(now) and now > lower
    assert before.score(seen * 1.5) > now > before.score(seen / 1.5)


def test_the_total_reaches_down_to_the_mixture_before_an_onset_that_nothing_announces() -> None:
    sweep, losses, total = synthetic(10 ** (11 + 0.5 * np.arange(3)), 5, 0.002)
    unannounced, copies = (
        fit_kinds(
            sweep.params, sweep.tokens, losses, total, shares=SHARES, budgets=sweep.budgets,
            copying=np.full(len(total), score),
        )
        for score in (0.001, 0.3)
    )  # fmt: skip
    at = np.array([1e5, 3e5, 1e6]), np.array([1e7, 3e7, 1e8])
    mixture, _ = unannounced.predict(*at)
    loss = np.asarray(mixture.loss)
    plain = replace(mixture, intervals={0.9: (loss * 0.999, loss * 1.2)})
    low, high = unannounced.reach_down(plain, *at).intervals[0.9]
    assert plain.reach[0] < 10 < plain.reach[1] < 100 < plain.reach[2]
    assert low[0] == loss[0] * 0.999  # within the first decade nothing is ahead
    assert mixture.intervals[0.9][0][1] < low[1] < loss[1] * 0.999
    assert low[2] == pytest.approx(mixture.intervals[0.9][0][2]) and np.all(high == loss * 1.2)
    wide = replace(mixture, intervals={0.9: (loss * 0.5, loss * 1.2)})
    assert np.all(unannounced.reach_down(wide, *at).intervals[0.9][0] == loss * 0.5)
    assert copies.reach_down(plain, *at) is plain
