"""`maquette profile`: parts that sum to the whole, FLOPs and memory that follow from the shape, files that open."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError
from maquette.cli import profile, train
from maquette.cli.command_line.config import ProfileStage, TrainStage
from maquette.model import count_parameters
from maquette.training.profile_report import part_times, tables
from maquette.training.profiling import ExclusiveClock, phase_of
from support.small_examples import example_settings, write_preferences

pytestmark = pytest.mark.usefixtures("no_pictures")


def staged(config: TrainStage, **changes: Any) -> ProfileStage:
    return ProfileStage(**vars(config) | {"profile_steps": 2, **changes})


def test_a_step_of_pretraining(configure: Callable[..., TrainStage], capsys: pytest.CaptureFixture[str]) -> None:
    config = configure(seed=4141, data__micro_batch_size=4, activation_checkpointing="block")
    result = profile.run(staged(config, json=True))
    printed = json.loads(capsys.readouterr().out)
    assert printed["mfu"] == pytest.approx(result.mfu) and sum(printed["shares"].values()) == pytest.approx(1.0)
    assert {"data", "forward", "backward", "optimiser", "callbacks and logging"} <= result.phases.keys()
    assert all(value > 0 for value in result.phases.values()) and result.passes == 2
    assert {"attention", "feed-forward", "head and loss", "norms and residuals"} <= part_times(result).keys()
    assert all(forward > 0 for forward, _ in part_times(result).values())
    shown = tables(result)
    for name in ("phases", "parts", "memory"):
        assert sum(row[-1] for row in shown[name]) == pytest.approx(1.0)
    spec = profile.plan_run(config).spec
    parameters = count_parameters(spec.architecture).total
    assert result.memory["weights"] == 4 * parameters
    assert result.memory["optimiser states"] == pytest.approx(8 * parameters, rel=0.01)
    assert result.memory["activations"] > 0
    assert result.predicted.keys() == result.memory.keys()
    assert sum(result.predicted.values()) == pytest.approx(sum(result.memory.values()), rel=0.15)
    products = sum(one.flops for one in result.operators if one.name in ("mm", "addmm", "_linear_pointwise"))
    assert products > result.flops / 2  # blocks are computed again
    folder = Path(config.outputs) / "profiles" / spec.name
    trace = json.loads((folder / "trace.json").read_text())
    assert any(event["name"] == "aten::mm" for event in trace["traceEvents"])
    page = (folder / "index.html").read_text()
    assert "Roofline" in page and "feed-forward" in page and "predicted MB" in page
    assert not (Path(config.outputs) / "runs" / spec.name).exists()


def test_a_step_of_dpo_and_a_run_that_is_too_short(configure: Callable[..., TrainStage], tmp_path: Path) -> None:
    base = train.run(configure(seed=42))
    write_preferences(tmp_path / "dpo.jsonl")
    settings = example_settings(tmp_path / "dpo", "dpo", str(base.folder), tmp_path / "dpo.jsonl")
    result = profile.run(staged(settings, profile_steps=1))
    assert result.objective == "dpo" and part_times(result)["attention"][1] > 0
    with pytest.raises(ConfigError, match="profile_steps"):
        profile.run(staged(configure(seed=43, tokens="512")))


def test_time_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, now = ExclusiveClock(), [0.0]
    monkeypatch.setattr(clock, "_now", lambda: now[0])
    clock.start()
    for name, seconds in (("outer", 1.0), ("inner", 2.0), (None, 4.0), (None, 8.0)):
        now[0] += seconds
        clock.enter(name) if name else clock.leave("inner" if seconds == 4.0 else "outer")
    assert dict(clock.seconds) == {"Trainer's loop": 1.0, "outer": 2.0 + 8.0, "inner": 4.0}
    assert phase_of("[_TrainingEpochLoop].train_dataloader_next") == "data"
    assert phase_of("[LightningModule]Pretraining.optimizer_step") == "optimiser"
    assert phase_of("run_training_batch") is None
    assert not torch.overrides._get_current_function_mode_stack()
