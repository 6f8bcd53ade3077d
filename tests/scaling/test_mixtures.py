import numpy as np
import pandas as pd
import pytest

from maquette.artifacts.errors import ConfigError
from maquette.recipe.sweeps import mixture_design
from maquette.reports import render
from maquette.scaling import LawError
from maquette.scaling.fits.mixture_checks import average_seeds, check_size, noise_words, sizes_of
from maquette.scaling.fits.mixture_fit import MixtureFit, fit_mixture, mixture_facts, mixture_figure, verdict
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.mixing_law import MixingLaw

TOKENS = {"code": 6_000_000, "docs": 3_000_000, "legal": 100_000, "none": 0}
TRUE = MixingLaw(
    np.array([2.0, 1.5, 1.0]), np.array([1.0, 0.8, 0.9]),
    np.array([[-1.2, 0.5, 0.1], [0.6, -0.9, 0.2], [0.4, 0.1, -4.0]]), np.zeros((0, 3)),
)  # fmt: skip

FEW = 9
"""Runs, where it is not about how well the law is known."""


def table(noise: float = 0.0, runs: int = 24) -> RunTable:
    """Runs under the true law, as the store lists them."""
    design = mixture_design(TOKENS, runs - 2, budget=500_000)
    weights = np.array([list(row.values()) for row in design])
    losses = TRUE.losses(weights) + noise * np.random.default_rng(0).normal(size=(runs, 3))
    names = ("code", "docs", "legal")
    columns = {f"mixture.weights.{name}": weights[:, k] for k, name in enumerate(names)}
    columns |= {f"validation/{name}/loss": losses[:, k] for k, name in enumerate(names)}
    columns |= {f"epochs/{name}": 500_000 * weights[:, k] / TOKENS[name] for k, name in enumerate(names)}
    ones = np.ones(runs)
    return RunTable(
        "a sweep", tuple(f"run-{k}" for k in range(runs)), 5e4 * ones, 5e5 * ones, losses.mean(axis=1), 1e11 * ones,
        1e11 * ones, pd.DataFrame(columns),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result() -> MixtureFit:
    """What is fitted to 24 runs: leaving out each in turn takes a quarter of a minute."""
    return fit_mixture(table(noise=1e-3))


@pytest.mark.slow(reason="fits mixing laws, leaving out each of the runs in turn")
def test_epochs_that_leave_no_mixture_are_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"max_epochs=0\.02 leaves no mixture: runs of this length need 0\.1"):
        fit_mixture(table(), max_epochs=0.02)
    tight = fit_mixture(table(runs=FEW), max_epochs=0.1)
    epochs = [share * 500_000 / TOKENS[name] for name, share in tight.mixture.items()]
    assert max(epochs) <= 0.1 + 1e-6


@pytest.mark.slow(reason="fits mixing laws, leaving out each of the runs in turn")
def test_targets_move_the_optimum(result: MixtureFit) -> None:
    runs = table(noise=1e-3, runs=FEW)
    code = fit_mixture(runs, targets={"code": 2, "docs": 1})
    assert code.mixture["code"] > result.mixture["code"] and code.mixture["legal"] < 0.02
    assert list(code.targets) == pytest.approx([2 / 3, 1 / 3, 0])
    assert code.measured[0] == pytest.approx(code.losses[0] @ code.targets)
    assert "code 67%, docs 33%" in verdict(code, None)
    with pytest.raises(ConfigError, match=r"targets\.cod is no domain"):
        fit_mixture(runs, targets={"cod": 1})
    with pytest.raises(ConfigError, match="negative"):
        fit_mixture(runs, targets={"code": -1})
    with pytest.raises(ConfigError, match="all 0"):
        fit_mixture(runs, targets={"code": 0})


@pytest.mark.slow(reason="fits mixing laws, leaving out each of the runs in turn")
def test_the_form_that_foretells_runs_is_chosen(result: MixtureFit) -> None:
    assert result.law.form == "exponential" and result.errors["exponential"] < result.errors["transfer"]
    runs = table(runs=FEW)
    weights = np.column_stack([runs.frame[f"mixture.weights.{name}"] for name in ("code", "docs", "legal")])
    for k, name in enumerate(("code", "docs", "legal")):
        runs.frame[f"validation/{name}/loss"] = 2 + (weights[:, k] + 0.1) ** -0.3
    other = fit_mixture(runs)
    assert other.law.form == "transfer" and other.errors["transfer"] < other.errors["exponential"]


@pytest.mark.slow(reason="fits mixing laws, leaving out each of the runs in turn")
def test_the_optimum_of_a_known_law_is_found_and_beats_what_it_should(result: MixtureFit) -> None:
    true = TRUE.losses(result.optimum).mean()
    assert result.predicted == pytest.approx(true, abs=0.01)
    assert result.left_out_error < 0.01
    assert result.uniform == 0
    assert result.proportional == 1
    assert true < result.measured[[0, 1]].min()
    assert (result.optimum <= result.upper + 1e-9).all()
    assert result.upper[2] <= 4 * 100_000 / 500_000 + 1e-6
    assert "better than the uniform and the size-proportional one" in verdict(result, float(true))
    assert "not better than the uniform" in verdict(result, 9.0)


@pytest.mark.slow(reason="fits mixing laws, leaving out each of the runs in turn")
def test_what_is_reported_has_every_number(result: MixtureFit) -> None:
    facts = mixture_facts(result, 1.5)
    assert facts["verified"] == 1.5 and facts["checks"] == []
    assert "No mixture was trained with a second seed" in verdict(result, None)
    assert sum(facts["optimum"].values()) == pytest.approx(1, abs=1e-3)
    shown = {"words": verdict(result, 1.5), "figures": {"law": mixture_figure(result, 1.5)}}
    page = render("mixing_law.html.j2", {"result": result, "source": "a sweep", **shown})
    assert "run-23" in page
    assert "legal" in page


def test_runs_that_do_not_belong_together_are_refused() -> None:
    runs = table()
    runs.params[3] *= 2
    with pytest.raises(LawError, match="differ in size"):
        fit_mixture(runs)
    bare = table()
    bare.frame.drop(columns=[c for c in bare.frame if c.startswith("mixture")], inplace=True)
    with pytest.raises(LawError, match=r"no mixture\.weights"):
        fit_mixture(bare)


def test_seeds_are_averaged_and_a_second_size_checks_the_order() -> None:
    """Each mixture twice, 1% apart; at a larger size all losses are a tenth lower, but of the best one."""
    runs, targets = table(), np.full(3, 1 / 3)
    weights = np.column_stack([runs.frame[f"mixture.weights.{name}"] for name in ("code", "docs", "legal")])
    losses = np.column_stack([runs.frame[f"validation/{name}/loss"] for name in ("code", "docs", "legal")])
    small = average_seeds(np.repeat(weights, 2, axis=0), np.kron(losses, [[1.0], [1.01]]), targets)
    assert list(small.first) == list(range(0, 48, 2)) and small.losses == pytest.approx(1.005 * losses)
    assert small.noise == pytest.approx(np.log(1.01) / np.sqrt(2)) and small.freedom == 24
    assert "differ by 0.70% (standard deviation, 24 degrees of freedom)" in noise_words(small)
    best = int(losses.mean(axis=1).argmin())
    turned = 0.9 * losses
    turned[best] *= 2
    large = average_seeds(weights[::-1], turned[::-1], targets)
    check = check_size(small, large, targets, 2e5, 1e6, "a sweep")
    mean = turned.mean(axis=1)
    first, second = np.triu_indices(24, 1)
    counted = np.abs(np.log(mean[first] / mean[second])) > np.log(1.01)
    wrong = ((first == best) | (second == best)) & counted
    assert check.mixtures == 24 and check.agreement == pytest.approx(1 - wrong.sum() / counted.sum())
    assert check.lost == pytest.approx(mean[best] / mean.min() - 1)
    assert "200,000 parameters" in check.words and noise_words(large).startswith("No mixture was trained")


def test_sizes_of_a_table_come_smallest_first() -> None:
    runs = table()
    runs.params[::2] *= 4
    assert [list(rows) for rows in sizes_of(runs)] == [list(range(1, 24, 2)), list(range(0, 24, 2))]
