"""What the recipe's learning rate costs: from runs at half and twice the rate, which are no points of the law."""

import numpy as np
import pandas as pd
import pytest

from maquette.scaling.fits.confounders import find_confounders
from maquette.scaling.fits.recipe_cost import REASON, recipe_costs
from maquette.scaling.fits.table import RunTable


def runs(best: dict[float, float], *, recorded: bool = True) -> RunTable:
    """Of each size a run at rate 0.01, those of `best` also at half and twice; their least loss is at that multiple."""
    rows = []
    for size in (1e4, 3e4, 1e5):
        for multiple in (1.0, 0.5, 2.0) if size in best else (1.0,):
            away = np.log(multiple / best.get(size, 1.0))
            rows.append((size, 20 * size, 30 / size**0.2 * np.exp(0.02 * away**2), 0.01 * multiple))
    params, tokens, loss, rate = np.array(rows).T
    frame = pd.DataFrame({"optimizer.lr": rate, "seed": 0.0} | ({"recipe.learning_rate": 0.2} if recorded else {}))
    names = tuple(f"r{index}" for index in range(len(rows)))
    return RunTable("runs", names, params, tokens, loss, 6 * params * tokens, 6 * params * tokens, frame)


def test_the_cost_is_that_of_the_middle_rate_over_the_least() -> None:
    table, costs = recipe_costs(runs({1e4: 1.8, 1e5: 1.0}))
    assert table.params.tolist() == [1e4, 3e4, 1e5] and set(table.frame["optimizer.lr"]) == {0.01}
    assert len(table.left_out) == 4 and {why for _, why in table.left_out} == {REASON}
    assert [one.params for one in costs] == [1e4, 1e5]
    assert [one.best for one in costs] == pytest.approx([1.8, 1.0])
    assert [one.cost for one in costs] == pytest.approx([np.expm1(0.02 * np.log(1.8) ** 2), 0.0], abs=1e-9)
    assert not any(one.edge for one in costs)


def test_a_best_rate_at_the_edge_costs_at_least_that() -> None:
    _, (cost,) = recipe_costs(runs({1e4: 4.0}))
    assert cost.edge and cost.best == pytest.approx(2.0) and "at least" in cost.words


def test_uneven_costs_are_told_as_what_bends_the_law() -> None:
    table, costs = recipe_costs(runs({1e4: 1.8, 1e5: 1.0}))
    (recipe,) = find_confounders(table, np.zeros(3), costs=costs)
    assert recipe.alarming and "0.7% at 10k (best at 1.8 times), 0.0% at 100k" in recipe.words
    (unknown,) = find_confounders(table, np.zeros(3))
    assert not unknown.alarming and "sweep.rate_pairs" in unknown.words


@pytest.mark.parametrize("table", [runs({}), runs({1e4: 1.0}, recorded=False)])
def test_without_pairs_or_a_recorded_recipe_the_table_stays(table: RunTable) -> None:
    assert recipe_costs(table) == (table, ())
