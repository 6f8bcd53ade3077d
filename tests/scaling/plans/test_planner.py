"""The planner: the table of sizes and budgets, and plans that follow from their assumptions."""

import json

import numpy as np
import pytest

from maquette.artifacts import ConfigError
from maquette.scaling import Assumptions, compare_pipelines, make_plan, preset
from maquette.scaling.laws.repetition import RepetitionLaw
from maquette.scaling.laws.surface import BESIROGLU_2024
from maquette.scaling.plans.hardware import accelerator
from maquette.scaling.plans.planner import expected_minimum

SURFACE = BESIROGLU_2024.surface
KEYS = (
    "params", "tokens", "tokens_per_param", "flops", "gpu_hours", "days", "compute_cost", "staff_cost", "total_cost",
    "tonnes_co2e",
)  # fmt: skip


def test_the_lectures_table_of_llama_3_405b() -> None:
    plan = make_plan(preset("llama3_405b"), SURFACE)
    values = plan.to_json()
    assert tuple(values)[:10] == KEYS
    assert values["tokens"] == 15.6e12 and values["params"] == 405e9
    assert values["tokens_per_param"] == pytest.approx(39, abs=1)
    assert values["flops"] == pytest.approx(3.8e25, rel=0.01) and not values["reportable"]
    assert values["days"] == pytest.approx(70, abs=2)
    assert values["gpu_hours"] == pytest.approx(26e6, rel=0.02)
    assert values["compute_cost"] == pytest.approx(52e6, rel=0.02)
    assert values["staff_cost"] == 25e6
    assert values["total_cost"] == pytest.approx(77e6, rel=0.01)
    assert values["tonnes_co2e"] == pytest.approx(4000, rel=0.02)
    assert values["serving_gpus"] == 11  # 810 GB of weights on cards of 80
    assert values["flights"] == pytest.approx(2000, rel=0.02)
    json.dumps(values)


def test_every_factor_of_a_preset_can_be_changed() -> None:
    plan = make_plan(preset("llama3_405b", gpus=8_000, price=4.0, people=10), SURFACE)
    assert plan.days == pytest.approx(2 * 68.55, rel=1e-3)
    assert plan.compute_cost == pytest.approx(105.3e6)
    assert plan.staff_cost == 5e6


def test_ten_thousand_gpus_for_a_month() -> None:
    plan = make_plan(Assumptions(gpu="h100", gpus=10_000, days=30), SURFACE, samples=BESIROGLU_2024.samples(500))
    assert plan.days == pytest.approx(30)
    assert plan.flops == pytest.approx(10_000 * 30 * 86_400 * 989.4e12 * 0.4)
    assert (plan.params, plan.tokens) == pytest.approx(SURFACE.optimal(plan.flops))
    for name in ("params", "tokens", "loss"):
        assert plan.intervals[name].contains(getattr(plan, name))
    assert plan.gain_per_dollar_gpus > 0 and plan.gain_per_dollar_data == 0
    assert plan.training_memory_per_gpu == pytest.approx(16 * plan.params / 10_000)


def test_more_money_buys_what_the_derivative_says() -> None:
    base = Assumptions(gpus=1000, days=30)
    plan = make_plan(base, SURFACE)
    richer = make_plan(Assumptions(gpus=1000, days=30.03), SURFACE)
    dollars = richer.compute_cost - plan.compute_cost
    assert (plan.loss - richer.loss) / dollars == pytest.approx(plan.gain_per_dollar_gpus, rel=1e-2)


def test_serving_asks_for_a_smaller_model_of_the_same_loss() -> None:
    plan = make_plan(Assumptions(tokens_served=2e13), SURFACE)
    assert plan.serving is not None and plan.serving.params < plan.params
    assert SURFACE.loss(*plan.serving) == pytest.approx(plan.loss)
    assert plan.serving_flops_saved > 0


def test_short_data_means_epochs_and_a_price_on_tokens() -> None:
    plenty, short = (make_plan(Assumptions(tokens_available=amount), SURFACE) for amount in (1e14, 1e12))
    assert (
        plenty.epochs is not None and plenty.epochs < 1 and plenty.gain_per_dollar_data == pytest.approx(0, abs=1e-15)
    )
    assert short.epochs is not None and short.epochs > 1 and short.gain_per_dollar_data > 0
    assert short.loss > plenty.loss


@pytest.mark.parametrize("served", [1e11, 1e13, 1e15])
def test_serving_with_short_data_counts_the_repetition(served: float) -> None:
    available = 1e12
    plan = make_plan(Assumptions(tokens_available=available, tokens_served=served), SURFACE)
    law = RepetitionLaw(SURFACE)
    assert plan.serving is not None and plan.tokens_served_for is None and plan.to_json()["tokens_served_for"] is None
    assert law.loss(*plan.serving, available) == pytest.approx(plan.loss, rel=1e-9)
    # none on the curve of equal loss is cheaper: neighbours, and the plan itself
    cost = 6 * plan.serving.params * plan.serving.tokens + 2 * plan.serving.params * served
    assert cost <= (6 * plan.tokens + 2 * served) * plan.params * (1 + 1e-6)
    assert plan.serving_flops_saved >= -1e-6 * cost
    for factor in (0.97, 1.03):
        params = plan.serving.params * factor
        tokens = np.geomspace(available / 10, available * 400, 200_001)
        enough = tokens[law.loss(params, tokens, available) <= plan.loss]
        assert not len(enough) or 6 * params * enough[0] + 2 * params * served >= cost * (1 - 1e-4)


def test_few_degrees_of_freedom_widen_the_intervals() -> None:
    samples = BESIROGLU_2024.samples(500)
    many, few = (
        make_plan(Assumptions(), SURFACE, samples=samples, degrees_of_freedom=freedom) for freedom in (np.inf, 4)
    )
    for name in ("params", "tokens", "loss"):
        assert few.intervals[name].low < many.intervals[name].low
        assert few.intervals[name].high > many.intervals[name].high


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpu": "h10"}, "Did you mean h100"),
        ({"gpus": 0}, "gpus=0"),
        ({"utilization": 1.4}, "no accelerator beats"),
        ({"params": 1e9}, "both params and tokens"),
        ({"tokens_available": -1.0}, "tokens_available=-1"),
        ({"people": -3}, "people=-3"),
    ],
)
def test_assumptions_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Assumptions(**changes)
    with pytest.raises(ConfigError, match="llama3_405b"):
        preset("llama4")


def test_accelerators_are_found_by_any_case() -> None:
    assert accelerator("H100").power == 700


def test_thirty_small_models_against_one_big_one() -> None:
    result = compare_pipelines(SURFACE, 1e22)
    assert result.new_loss < result.old_loss
    assert result.new.compute == pytest.approx(27 * result.old.compute)
    assert result.compute_factor == pytest.approx(27)
    with pytest.raises(ConfigError, match="small_days=30"):
        compare_pipelines(SURFACE, 1e22, small_days=30)


def test_the_best_of_thirty() -> None:
    drawn = np.random.default_rng(0).standard_normal((20_000, 30)).min(axis=1)
    assert expected_minimum(30) == pytest.approx(drawn.mean(), abs=0.02)
