"""What is said of memory before a run: by arithmetic where that will do, traced where it is near, planned for GPUs."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maquette.cli import plan
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.law_config import PlanStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning import memory
from maquette.cli.sweeps.forecast import PlannedJob
from maquette.cli.sweeps.table import show_jobs
from maquette.model import LSTMConfig, MixtureOfExpertsConfig, TransformerConfig
from maquette.optimization.config import AdamWConfig
from maquette.training.step_memory import Step, predict

SHAPES = {
    "narrow": (TransformerConfig(272, 32, 4, 2, intermediate_size=96, token_shift=True), 16, 64),
    "large vocabulary": (TransformerConfig(8192, 64, 3, 2, intermediate_size=160, activation="gelu"), 2, 128),
    "long": (TransformerConfig(512, 64, 4, 2, intermediate_size=160), 1, 768),
    "experts": (MixtureOfExpertsConfig(512, 64, 4, 2, intermediate_size=64, num_experts=8), 4, 128),
    "lstm": (LSTMConfig(512, 64, 2), 4, 128),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_far_below_by_arithmetic_fits(name: str) -> None:
    shape, rows, context = SHAPES[name]
    step = predict(Step(shape, rows, context, AdamWConfig())).total
    assert memory.by_arithmetic(shape, rows, context) / memory.FAR < step
    assert step < memory.FAR * memory.by_arithmetic(shape, rows, context)


def lines(*overrides: str) -> str:
    config: Any = compose(STAGES["train"], list(overrides))
    return "\n".join(memory.memory_lines(config))


def test_a_step_is_traced_where_memory_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["size=20k", "data.sequence_length=64"]
    assert "by arithmetic" in lines(*small)
    traced = lines(*small, "optimizer=adafactor")
    assert "optimiser states" in traced and "it fits" in traced
    monkeypatch.setattr(memory, "machine_memory", lambda: 4e6)
    assert "optimiser states" in lines(*small)
    assert "by arithmetic" not in lines("size=20k", "data.sequence_length=64", "data.micro_batch_size=4")


def test_sparse_models_are_shown_with_both_their_sizes() -> None:
    shown = lines("size=100k", "model=moe", "tokenizer.vocab_size=512").splitlines()[0]
    assert "that a token uses" in shown and "in all" in shown and "that a token uses" not in lines("size=100k")

    def job(title: str, inactive: int) -> Any:
        one = PlannedJob(
            10_000, 1_000_000, 10**9, 100, 16, 2, 0.1, 512, "transformer, swiglu", "fp32", inactive=inactive
        )
        return SimpleNamespace(title=title, forecast=one, error=None)

    sweep: Any = SimpleNamespace(jobs=[job("dense", 0), job("sparse", 12_345)])
    header, dense, sparse = show_jobs(sweep, [1.0, 2.0]).splitlines()
    assert "N active" in header and "in all" in header
    assert dense.split()[2:4] == ["10,000", "10,000"] and sparse.split()[2:4] == ["10,000", "22,345"]
    sweep.jobs = sweep.jobs[:1]
    assert "in all" not in show_jobs(sweep, [1.0])


def test_show_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "from maquette.cli.command_line.dispatcher import main\n"
        "try:\n    main(['train', 'size=20k', '--show'])\n"
        "except SystemExit:\n    pass\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    *shown, imported = done.stdout.splitlines()
    assert imported == "False" and any("it fits" in line for line in shown), done.stderr


def test_a_plan_counts_the_parameters_of_all_experts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few: dict[str, Any] = {"outputs": str(tmp_path), "gpus": 8, "days": 3, "json": True}
    plan.run(PlanStage(**few, num_experts=64, num_experts_per_tok=8))
    values = json.loads(capsys.readouterr().out)
    assert values["total_params"] > 3 * values["params"] and values["step_memory"] is None
    assert values["serving_memory"] == pytest.approx(2 * values["total_params"])


@pytest.mark.slow(reason="goes through steps of billions of parameters, without numbers")
def test_a_plan_says_whether_a_step_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few: dict[str, Any] = {"outputs": str(tmp_path), "gpus": 8, "days": 3, "json": True, "sequence_length": 512}
    dense = plan.run(PlanStage(**few))
    printed = json.loads(capsys.readouterr().out)
    assert printed["step_memory"]["fits"] and printed["step_memory"]["kind"] == "none"
    assert set(printed["step_memory"]["parts"]) > {"weights", "activations", "gathered weights"}
    plan.run(PlanStage(**few, num_experts=64, num_experts_per_tok=8))
    more = json.loads(capsys.readouterr().out)
    assert more["params"] == printed["params"] == dense.params  # type: ignore[union-attr]
    assert more["total_params"] > 3 * more["params"]
    assert more["serving_memory"] == pytest.approx(2 * more["total_params"])
    assert more["step_memory"]["parts"]["weights"] > 3 * printed["step_memory"]["parts"]["weights"]
    plan.run(PlanStage(**few | {"json": False, "gpus": 1, "days": 1000}))
    assert "does not fit" in " ".join(capsys.readouterr().out.split())
