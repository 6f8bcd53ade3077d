import json
from pathlib import Path

import pytest

from maquette.artifacts import ConfigError
from maquette.cli import plan
from maquette.cli.command_line.law_config import PlanStage
from maquette.scaling import ComputePlan


def test_the_lectures_table_of_llama_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(PlanStage(outputs=str(tmp_path), preset="llama3_405b", json=True))
    values = json.loads(capsys.readouterr().out)
    assert values["params"] == 405e9 and values["tokens"] == 15.6e12
    assert values["tokens_per_param"] == pytest.approx(39, abs=0.6)
    assert values["flops"] == pytest.approx(3.8e25, rel=0.01) and not values["reportable"]
    assert values["days"] == pytest.approx(70, rel=0.03) and values["gpu_hours"] == pytest.approx(26e6, rel=0.02)
    assert values["compute_cost"] == pytest.approx(52e6, rel=0.02) and values["staff_cost"] == 25e6
    assert values["total_cost"] == pytest.approx(77e6, rel=0.02)
    assert values["tonnes_co2e"] == pytest.approx(4000, rel=0.02)


def test_ten_thousand_accelerators_for_a_month(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = plan.run(PlanStage(outputs=str(tmp_path), gpus=10_000, gpu="h100", days=30, tokens_served="10t"))
    assert isinstance(result, ComputePlan) and result.days == pytest.approx(30)
    assert result.serving is not None and result.serving.params < result.params
    low, high = result.intervals["params"]
    assert low < result.params < high
    printed = capsys.readouterr().out
    assert result.staff_cost == 0 and "staff" not in printed  # nobody is paid unless asked for
    assert "tokens per parameter" in printed and "cheaper to serve" in printed
    assert len(list((tmp_path / "plans").glob("*.png"))) == 1


def test_each_factor_can_be_changed(tmp_path: Path) -> None:
    changed = PlanStage(outputs=str(tmp_path), preset="llama3_405b", price=4.0, people=10, utilization=0.2)
    result = plan.run(changed)
    assert isinstance(result, ComputePlan)
    assert result.compute_cost == pytest.approx(result.gpu_hours * 4) and result.staff_cost == 5e6
    assert result.days == pytest.approx(68.6 * 0.4043 / 0.2, rel=0.01)


def test_old_and_new_way_at_equal_compute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(PlanStage(outputs=str(tmp_path), pipeline="compare"))
    assert "27.0 x" in capsys.readouterr().out


def test_which_served_volume_asks_for_llama_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.run(PlanStage(outputs=str(tmp_path), preset="llama3_405b", json=True))
    values = json.loads(capsys.readouterr().out)
    result = plan.run(PlanStage(outputs=str(tmp_path), preset="llama3_405b"))
    assert isinstance(result, ComputePlan)
    # With that volume the model of this loss that is cheapest to train and serve is Llama 3 405B itself.
    best = result.surface.optimal_for_serving(result.loss, values["tokens_served_for"])
    assert best.params == pytest.approx(405e9, rel=1e-3) and best.tokens == pytest.approx(15.6e12, rel=1e-3)
    assert "best if it serves" in capsys.readouterr().out


def test_150_tokens_a_parameter_at_equal_compute(tmp_path: Path) -> None:
    usual = plan.run(PlanStage(outputs=str(tmp_path)))
    long = plan.run(PlanStage(outputs=str(tmp_path), tokens_per_parameter=150))
    assert isinstance(usual, ComputePlan) and isinstance(long, ComputePlan)
    assert long.tokens_per_param == pytest.approx(150) and long.flops == pytest.approx(usual.flops)
    assert long.loss > usual.loss and long.tokens_served_for > 0
    assert usual.tokens_served_for == pytest.approx(0, abs=1e-3 * usual.tokens)
    with pytest.raises(ConfigError, match="beside params"):
        plan.run(PlanStage(outputs=str(tmp_path), tokens_per_parameter=150, params="7b", tokens="1t"))


def test_half_a_model_and_unknown_hardware_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="both params and tokens"):
        plan.run(PlanStage(outputs=str(tmp_path), params="7b"))
    with pytest.raises(ConfigError, match="h100"):
        plan.run(PlanStage(outputs=str(tmp_path), gpu="h10"))
