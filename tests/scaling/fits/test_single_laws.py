"""L(N) and L(D) alone, from grids with a known truth."""

import numpy as np
import pandas as pd
import pytest

from maquette.reports import render
from maquette.scaling.fits.single_laws import fit_single_laws, single_facts, single_figure
from maquette.scaling.fits.table import RunTable
from maquette.scaling.laws.runs import LawError, group_budgets


def grid(size_limit: float = 0.0, text_limit: float = 0.0, noise: float = 0.0) -> RunTable:
    """L = (3 N^-.08 + text_limit) (D^-.1 + size_limit), so that without limits both laws are alone everywhere."""
    sizes, counts = (a.ravel() for a in np.meshgrid(1e4 * 2.0 ** np.arange(5), 1e5 * 2.0 ** np.arange(6)))
    loss = (3 * sizes**-0.08 + text_limit) * (counts**-0.1 + size_limit)
    loss *= np.exp(noise * np.random.default_rng(0).standard_normal(len(loss)))
    compute = 6 * sizes * counts
    names = tuple(f"r{place}" for place in range(len(sizes)))
    return RunTable("a grid", names, sizes, counts, loss, compute, group_budgets(compute), pd.DataFrame(index=names))


def test_each_law_is_found_at_the_largest_of_the_other() -> None:
    laws = fit_single_laws(grid(noise=0.001))
    assert laws.size.fit.exponent == pytest.approx(-0.08, abs=0.003)
    assert laws.tokens.fit.exponent == pytest.approx(-0.1, abs=0.003)
    low, high = laws.size.fit.interval["exponent"]
    assert low < -0.08 < high and laws.size.held == pytest.approx(3.2e6) and laws.tokens.held == pytest.approx(1.6e5)
    assert not laws.warnings
    facts = single_facts(laws)
    assert [row["points"] for row in facts["L(N)"]] == [5] * 6 and len(facts["L(D)"]) == 5
    page = render("single_laws.html.j2", {"result": laws, "source": "a grid", "figures": {"law": single_figure(laws)}})
    assert "3.2M tokens" in page and "L(N) at each number of tokens" in page


def test_a_law_that_the_other_quantity_limits_is_called_so() -> None:
    sizes, counts = (a.ravel() for a in np.meshgrid(1e4 * 2.0 ** np.arange(4), 1e5 * 2.0 ** np.arange(3)))
    loss = 40 * sizes**-0.4 + 400 * counts**-0.5  # too little text shows size for less than it is worth
    compute = 6 * sizes * counts
    table = RunTable("a grid", ("r",) * 12, sizes, counts, loss, compute, compute, pd.DataFrame(index=range(12)))
    laws = fit_single_laws(table)
    assert laws.size.still_growing and any("exponent of N still grows with the tokens" in w for w in laws.warnings)
    assert any("L(D) rests on 3 points" in warning for warning in laws.warnings)


def test_a_table_without_such_runs_is_refused() -> None:
    line = grid().take(np.arange(5))  # one number of tokens
    with pytest.raises(LawError, match=r"L\(D\) alone needs 3 values of D at one number of parameters"):
        fit_single_laws(line)
