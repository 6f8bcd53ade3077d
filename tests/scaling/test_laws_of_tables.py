"""HyperparameterRules of settings, of epochs and of families from tables with a known truth."""

import numpy as np
import pandas as pd
import pytest

from maquette.artifacts import ConfigError
from maquette.recipe.rules import DEFAULT_RULES
from maquette.reports import render
from maquette.scaling.fits.families import (
    compare_by,
    comparison_facts,
    comparison_figure,
    split_families,
)
from maquette.scaling.fits.repetition_fit import fit_epochs, repetition_facts, repetition_figure
from maquette.scaling.fits.table import RunTable
from maquette.scaling.fits.tuned_recipe import tune, tuned_facts, tuned_figure
from maquette.scaling.laws.repetition import RepetitionLaw
from maquette.scaling.laws.runs import LawError, group_budgets
from support.sweeps import TRUTHS, half_decades, isoflop_sweep


def table(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, **columns: object) -> RunTable:
    compute = 6 * params * tokens
    return RunTable(
        "a table", tuple(f"r{i}" for i in range(len(params))), params, tokens, loss, compute, group_budgets(compute),
        pd.DataFrame(columns),
    )  # fmt: skip


def rates() -> RunTable:
    """Best rate 0.3 / width at the base batch; half the runs have four times the batch, and so a higher rate."""
    width, shift, batch = (a.ravel() for a in np.meshgrid([16, 32, 64, 128], [-1.5, -0.7, 0.1, 0.9], [512, 2048]))
    best = 0.3 / width * (batch / 512) ** DEFAULT_RULES.lr_batch_exponent
    loss = 4 * width**-0.1 * np.exp(0.02 * shift**2)
    params = 100.0 * width**2
    return table(
        params, 20 * params, loss,
        **{"optimizer.lr": best * np.exp(shift), "model.hidden_size": width, "data.batch_size_tokens": batch},
    )  # fmt: skip


def test_the_learning_rates_law_becomes_a_recipe() -> None:
    result = tune(rates(), "learning_rate", fitted="now")
    assert result.rules.learning_rate == pytest.approx(
        0.3, rel=1e-3
    ) and result.rules.lr_width_exponent == pytest.approx(-1, abs=1e-3)
    assert result.rules.lr_batch_exponent == DEFAULT_RULES.lr_batch_exponent and "32 runs" in result.rules.source
    assert result.rules.peak_learning_rate(256, 2048) == pytest.approx(
        0.3 / 256 * 4**DEFAULT_RULES.lr_batch_exponent, rel=1e-2
    )
    assert tuned_facts(result)["recipe"]["provenance"]["fitted"] == "now"
    shown = {"command": "maquette train recipe=x", "figures": {"law": tuned_figure(result)}}
    page = render("setting_law.html.j2", {"result": result, "source": "a table", **shown})
    assert "recipe=x" in page


def test_the_batchs_law_keeps_the_base_batch() -> None:
    tokens, shift = (a.ravel() for a in np.meshgrid([1e6, 1e7, 1e8], [-1.4, -0.7, 0.0, 0.7, 1.4]))
    best = 0.02 * tokens**0.7
    runs = table(tokens / 20, tokens, 3 * np.exp(0.01 * shift**2), batch=best * np.exp(shift))
    result = tune(runs, "batch")
    assert result.rules.base_batch_size_tokens == DEFAULT_RULES.base_batch_size_tokens
    assert result.rules.batch_tokens_exponent == pytest.approx(0.7, abs=1e-3)
    assert result.rules.batch(1e9) == pytest.approx(0.02 * 1e9**0.7, rel=1e-2)


def test_settings_without_their_columns_are_refused() -> None:
    runs = table(np.ones(3), np.ones(3), np.ones(3), lr=[1, 2, 3])
    with pytest.raises(LawError, match="no column for the width"):
        tune(runs, "learning_rate")
    with pytest.raises(LawError, match="no column for the batch"):
        tune(runs, "batch")


def test_epochs_wear_out_as_fast_as_they_do() -> None:
    truth = RepetitionLaw(TRUTHS["additive"], token_decay=8.0)
    sweep = isoflop_sweep(truth.surface, half_decades(1e18, 3), noise=0)
    params, tokens = np.concatenate([sweep.params, sweep.params]), np.concatenate([sweep.tokens, sweep.tokens])
    epochs = np.concatenate([np.full(len(sweep.params), 0.5), np.tile([2, 5, 10, 20, 30, 12, 6], 3)])
    unique = tokens / np.maximum(epochs, 1)
    # Of fresh data the surface is the law; that of repetition would also punish models too big for it.
    loss = np.where(epochs < 1, truth.surface.loss(params, tokens), truth.loss(params, tokens, unique))
    runs = table(params, tokens, loss, epochs=epochs)
    result = fit_epochs(runs, bootstrap=100)
    assert repetition_facts(result)["token_decay"] == pytest.approx(8, rel=0.01) and result.repeated == 21
    shown = {"source": "a table", "figures": {"law": repetition_figure(result, runs)}}
    assert "r = 8.0" in render("repetition_law.html.j2", {"result": result, **shown})
    with pytest.raises(LawError, match="repeats its data"):
        fit_epochs(table(params, tokens, loss, epochs=np.full(len(params), 0.5)))
    with pytest.raises(LawError, match="how many tokens were distinct"):
        fit_epochs(table(params, tokens, loss, lr=params))


def families(offset: float, tilt: float) -> RunTable:
    sweep = isoflop_sweep(TRUTHS["additive"], half_decades(1e17, 5), noise=0.001)
    other = sweep.loss * np.exp(offset) * (sweep.budgets / sweep.budgets.mean()) ** tilt
    kind = ["transformer"] * len(sweep.loss) + ["lstm"] * (len(sweep.loss))
    both = [np.concatenate([column, column]) for column in (sweep.params, sweep.tokens)]
    return table(*both, np.concatenate([sweep.loss, other]), **{"model.kind": kind})


def test_an_offset_is_an_offset_and_a_slope_a_slope() -> None:
    moved = compare_by(families(0.05, 0.0), "model.kind")
    (difference,) = moved.differences.values()
    assert list(moved.families) == ["transformer", "lstm"]  # as many runs each: the better one first
    assert "only the constant differs" in difference.words
    assert difference.ratio == pytest.approx(np.exp(0.05) - 1, abs=0.005)
    tilted = compare_by(families(0.05, 0.02), "model.kind")
    (difference,) = tilted.differences.values()
    assert "the slope differs" in difference.words and difference.slope == pytest.approx(0.02, abs=0.004)
    facts = comparison_facts(tilted)
    assert facts["families"]["lstm"]["minima"] and len(facts["families"]["lstm"]["compute"]) == 5
    shown = {"source": "a table", "figures": {"law": comparison_figure(tilted)}}
    page = render("families.html.j2", {"result": tilted, **shown})
    assert "the slope differs" in page


def test_several_columns_together_make_families() -> None:
    runs = families(0.05, 0.0)
    runs.frame["model.activation"] = np.where(np.arange(len(runs)) % 2, "gelu", "swiglu")
    parts = split_families(runs, "model.kind+model.activation")
    assert set(parts) == {"lstm gelu", "lstm swiglu", "transformer gelu", "transformer swiglu"}
    assert sum(len(part) for part in parts.values()) == len(runs)


def test_columns_that_compare_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean model\.kind"):
        compare_by(families(0, 0), "model.kid")
    runs = families(0, 0)
    with pytest.raises(ConfigError, match="all runs"):
        compare_by(runs.take(runs.frame["model.kind"] == "lstm"), "model.kind")
