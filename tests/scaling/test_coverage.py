"""Do 90% intervals hold nine times in ten? Two hundred simulated sweeps of each form."""

import numpy as np
import pytest

from maquette.scaling import fit_isoflop, fit_surface
from maquette.scaling.laws.forms import FORMS
from maquette.statistics import percentile_interval, student_interval
from support.sweeps import TRUTHS, isoflop_sweep


@pytest.mark.slow(reason="fits two hundred sweeps, each with a bootstrap")
@pytest.mark.parametrize("form", FORMS)
def test_intervals_hold_in_85_to_95_percent_of_200_sweeps(form: str) -> None:
    truth = TRUTHS[form]
    beyond = truth.optimal(1e21)
    held: dict[str, list[bool]] = {}
    for seed in range(200):
        sweep = isoflop_sweep(truth, np.geomspace(1e17, 1e20, 7), noise=0.003, seed=seed)
        fit = fit_surface(*sweep[:3], form=form, bootstrap=200, seed=seed)
        for name in {"alpha", "beta", "gamma"} & set(FORMS[form]):
            held.setdefault(name, []).append(fit.interval[name].contains(getattr(truth, name)))
        held.setdefault("exponent", []).append(fit.interval["exponent"].contains(truth.exponent))
        losses = fit.losses(*beyond)[:, 0]
        law = percentile_interval(losses, degrees_of_freedom=fit.degrees_of_freedom)
        held.setdefault("loss at ten times the compute", []).append(law.contains(truth.loss(*beyond)))
    shares = {name: np.mean(values) for name, values in held.items()}
    assert all(0.85 <= share <= 0.95 for share in shares.values()), shares


@pytest.mark.slow(reason="fits two hundred sweeps")
@pytest.mark.parametrize("method", ["parabola", "akima"])
def test_the_minimas_intervals_hold_as_well(method: str) -> None:
    """The exponent of N* and the loss at ten times the compute, by Student's intervals of the lines through the minima.

    The truth is what the method finds without noise: its own bias is reported apart (`IsoflopFit.bias`).
    """
    budgets = np.geomspace(1e17, 1e20, 7)
    clean = fit_isoflop(*isoflop_sweep(TRUTHS["kaplan"], budgets), method)
    held: dict[str, list[bool]] = {"exponent": [], "loss at ten times the compute": []}
    for seed in range(200):
        fit = fit_isoflop(*isoflop_sweep(TRUTHS["kaplan"], budgets, noise=0.003, seed=seed), method)
        held["exponent"].append(fit.interval.contains(clean.exponent))
        error = fit.loss_law.standard_error(1e21)
        half = student_interval(0.0, error, fit.loss_law.degrees_of_freedom, 0.9).high
        gap = float(np.log(fit.loss_law.law.value(1e21) / clean.loss_law.law.value(1e21)))
        held["loss at ten times the compute"].append(abs(gap) <= half)
    shares = {name: np.mean(values) for name, values in held.items()}
    assert all(0.85 <= share <= 0.95 for share in shares.values()), shares
