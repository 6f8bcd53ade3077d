"""The suggested run is the one that narrows the prediction, as a simulation shows."""

from itertools import pairwise

import numpy as np
import pytest

from maquette.scaling import LawError, fit_surface, suggest_runs
from support.sweeps import TRUTHS, half_decades, isoflop_sweep

TRUTH = TRUTHS["additive"]
SWEEP = isoflop_sweep(TRUTH, half_decades(1e17, 5), noise=0.004)
FIT = fit_surface(*SWEEP[:3])
TARGET = TRUTH.optimal(1e21)
OFFERED = TRUTH.optimal(np.repeat(np.geomspace(1e18, 3e19, 4), 3)).params * np.tile([0.3, 1.0, 3.0], 4)
SPANS = np.repeat(np.geomspace(1e18, 3e19, 4), 3) / 6 / OFFERED


def test_each_suggestion_narrows_what_those_before_it_left() -> None:
    chosen = suggest_runs(FIT, SWEEP.params, SWEEP.tokens, TARGET, (OFFERED, SPANS), count=4, per_flop=False)
    assert len(chosen) == 4
    for one, following in pairwise(chosen):
        assert one.error_after < one.error_before
        assert following.error_before == pytest.approx(one.error_after)
    assert chosen[0].compute == pytest.approx(3e19)
    cheap = suggest_runs(FIT, SWEEP.params, SWEEP.tokens, TARGET, (OFFERED, SPANS), count=1)
    assert cheap[0].compute <= chosen[0].compute


@pytest.mark.slow(reason="refits a surface fifty times")
def test_the_promised_error_is_the_one_that_refitting_shows() -> None:
    chosen = suggest_runs(FIT, SWEEP.params, SWEEP.tokens, TARGET, (OFFERED, SPANS), count=3, per_flop=False)
    params = np.concatenate([SWEEP.params, [run.params for run in chosen]])
    tokens = np.concatenate([SWEEP.tokens, [run.tokens for run in chosen]])
    generator = np.random.default_rng(0)
    predicted = {35: [], 38: []}
    for _ in range(25):
        loss = TRUTH.loss(params, tokens) * np.exp(FIT.noise * generator.standard_normal(38))
        for runs, result in predicted.items():
            result.append(np.log(fit_surface(params[:runs], tokens[:runs], loss[:runs]).surface.loss(*TARGET)))
    assert np.std(predicted[35]) == pytest.approx(chosen[0].error_before, rel=0.4)
    assert np.std(predicted[38]) == pytest.approx(chosen[-1].error_after, rel=0.4)


def test_a_suggestion_of_nothing_is_refused() -> None:
    with pytest.raises(LawError, match="count=0"):
        suggest_runs(FIT, SWEEP.params, SWEEP.tokens, TARGET, (OFFERED, SPANS), count=0)
