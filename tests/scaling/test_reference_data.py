"""Published fits, reproduced from the published runs (skipped where these are not at hand)."""

import numpy as np
import pandas as pd
import pytest

from maquette.scaling import fit_envelope, fit_isoflop, fit_surface
from support.sweeps import REFERENCE, needs_reference

pytestmark = needs_reference


@pytest.fixture(scope="module")
def epoch() -> list[np.ndarray]:
    table = pd.read_csv(REFERENCE / "chinchilla_points.csv")
    table = table[table.excluded_outlier == 0]
    assert len(table) == 240
    return [table[name].to_numpy() for name in ("n_params", "n_tokens", "loss")]


def test_plain_huber_on_the_240_points(epoch: list[np.ndarray]) -> None:
    fit = fit_surface(*epoch, method="huber")
    surface = fit.surface
    assert (surface.E, surface.alpha, surface.beta) == pytest.approx((1.817218, 0.347310, 0.367172), rel=1e-5)
    coefficients = [surface.A, surface.B]
    assert coefficients == pytest.approx([477.826, 2143.417], rel=1e-5)
    residual = np.log(epoch[2]) - np.log(surface.loss(*epoch[:2]))
    inside = np.minimum(np.abs(residual), 1e-3)
    assert np.sum(inside * (np.abs(residual) - inside / 2)) == pytest.approx(0.001018274017801, rel=1e-9)


def test_least_absolute_deviation_is_the_published_fit(epoch: list[np.ndarray]) -> None:
    surface = fit_surface(*epoch, method="lad").surface
    assert (surface.E, surface.alpha, surface.beta) == pytest.approx((1.81686, 0.3478, 0.3658), rel=3e-4)
    coefficients = [surface.A, surface.B]
    assert coefficients == pytest.approx([482.01, 2085.43], rel=1e-3)


def test_bootstrap_standard_errors(epoch: list[np.ndarray]) -> None:
    errors = fit_surface(*epoch, method="huber", bootstrap=1000).standard_error
    assert errors["alpha"] == pytest.approx(0.0155, rel=0.1)
    assert errors["beta"] == pytest.approx(0.021, rel=0.1)


def test_the_outliers_move_beta(epoch: list[np.ndarray]) -> None:
    table = pd.read_csv(REFERENCE / "chinchilla_points.csv")
    fit = fit_surface(table.n_params, table.n_tokens, table.loss, method="huber")
    assert fit.surface.beta == pytest.approx(0.453, abs=0.001)
    assert any("far outside" in text for text in fit.warnings)


STEPS = [
    ("base", "long", "kaplan", "kaplan", 0.835),
    ("base", "long", "kaplan", "standard", 0.706),
    ("base", "short", "kaplan", "standard", 0.602),
    ("base", "short", "chinchilla", "standard", 0.571),
    ("tuned", "short", "const", "standard", 0.497),
]


@pytest.mark.parametrize(("hparams", "warmup", "decay", "counted", "exponent"), STEPS)
def test_porians_five_steps_from_kaplan_to_chinchilla(
    hparams: str, warmup: str, decay: str, counted: str, exponent: float
) -> None:
    table = pd.read_csv(REFERENCE / "porian_refinedweb.csv")
    chosen = table.query("hparams == @hparams and warmup == @warmup and decay == @decay and param_count == @counted")
    columns = (chosen.n_params, chosen.n_tokens, chosen.loss, chosen.flops)
    fit = fit_isoflop(*columns, method="akima")
    assert fit.exponent == pytest.approx(exponent, abs=0.012)
    assert fit.interval.low < exponent < fit.interval.high
    assert fit_envelope(chosen.n_params, chosen.loss, chosen.flops).exponent == pytest.approx(exponent, abs=0.05)
