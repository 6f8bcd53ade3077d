"""Matrices cut up over two processes, experts divided over two, and adapters in shards do what one process does."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError
from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.model import MixtureOfExpertsConfig, TransformerConfig
from maquette.model.architecture import LSTMConfig
from maquette.training import read_history
from maquette.training.config import PrecisionConfig, TrainerConfig
from maquette.training.devices import check_sharing, choose_hardware
from maquette.training.processes import launch
from support.model_parallel_work import CURVES, curves, gradient_errors, run_all, settings_of_runs, train_as_one_does
from support.small_examples import write_instructions, write_preferences
from support.small_runs import settings

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two processes that train")
def test_two_processes_train_and_resume_as_one(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    for folder in (one, two):
        Path(folder).mkdir()
    alone = curves(one)
    done = launch(train_as_one_does, (one, two), 2)
    require_small(done["gradients"])
    resumed_alone = curves(two, resume=True)
    for name in CURVES:
        bound = 2e-3 if name.endswith("muon") else 2e-5  # as in test_sharded_strategy.py
        require_close(done["curves"][name], alone[name], bound)
        for resumed in (done["resumed"][name], resumed_alone[name]):
            require_close(resumed, alone[name][10:], bound)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="three runs of the command line in each of two processes")
def test_runs_of_the_command_line(prepared: tuple[Path, Path], tmp_path: Path) -> None:
    """Pretraining, SFT and DPO, with samples and what a run leaves."""
    outputs, source = prepared
    write_instructions(tmp_path / "sft.json")
    write_preferences(tmp_path / "dpo.json")
    base = str(train.run(settings(outputs, source, data__sequence_length=64, num_validations=1)).folder)
    shared = settings_of_runs(tmp_path / "two", base, source, tmp_path)
    for config in shared.values():
        config.trainer = dataclasses.replace(config.trainer, strategy="fsdp", devices=2)
    alone = settings_of_runs(tmp_path / "one", base, source, tmp_path)
    for config in alone.values():
        config.tensor_parallel_size = config.expert_parallel_size = 1
    ours, theirs = launch(run_all, shared, 2), run_all(alone)
    for name, folder in ours.items():
        one, two = figures(theirs[name]), figures(folder)
        assert one.keys() == two.keys() and any("experts/" in key for key in one) == (name == "pretrain, experts")
        for key, values in one.items():
            require_close(two[key], values, 5e-5)
        assert (Path(folder) / "model" / "model.safetensors").exists(), name
        assert (Path(folder) / "adapter").exists() == name.endswith("adapter")
        assert Path(folder).name == Path(theirs[name]).name  # the same run, wherever it is trained


def require_close(curve: Any, expected: Any, bound: float) -> None:
    assert torch.allclose(torch.tensor(curve), torch.tensor(expected), rtol=0, atol=bound), (curve, expected)


def require_small(errors: dict[str, dict[str, float]]) -> None:
    for name, of_one in errors.items():
        for what, error in of_one.items():
            assert error < (0.05 if name.endswith("bfloat16") else 5e-6), (name, what, error)


@pytest.mark.cuda
def test_two_gpus_do_what_one_does() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    require_small(launch(gradient_errors, "cuda", 2))


def figures(folder: str) -> dict[str, list[float]]:
    """Losses, KL and loads of a run."""
    wanted = ("loss", "validation/kl", "experts/")
    rows = read_history(Path(folder) / "metrics.jsonl")
    names = {key for row in rows for key in row if key.endswith(wanted) or key.startswith("experts/")}
    return {name: [row[name] for row in rows if name in row] for name in names}


DENSE = TransformerConfig(
    96, hidden_size=48, num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=3, intermediate_size=64
)
SPARSE = MixtureOfExpertsConfig(
    96, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_experts=6, num_experts_per_tok=2
)


@pytest.mark.parametrize(
    ("architecture", "changes", "complaint"),
    [
        (DENSE, {"tensor": 4}, "does not divide the model's 6 attention heads"),
        (DENSE, {"tensor": 2}, "does not divide the model's 3 key-value heads"),
        (LSTMConfig(96, hidden_size=32, num_hidden_layers=1), {"tensor": 2}, "not for model=lstm"),
        (dataclasses.replace(DENSE, activation="somebody.Snake"), {"tensor": 3}, "somebody.Snake"),
        (DENSE, {"experts": 2}, "not for model=transformer"),
        (SPARSE, {"experts": 4}, "does not divide the model's 6 experts"),
        (SPARSE, {"experts": 2, "tensor": 2}, "do not go together"),
        (DENSE, {"tensor": 3, "strategy": "ddp"}, "fsdp, not of ddp"),
        (DENSE, {"tensor": 3, "policy": True}, "rollouts"),
        (DENSE, {"tensor": 3, "adapter": True}, "adapter="),
        (DENSE, {"tensor": 3, "compile": "on"}, "compile=on"),
        (DENSE, {"policy": True, "adapter": True}, "policy's adapter"),
    ],
)
def test_what_can_not_be_shared_so_is_refused(architecture: Any, changes: dict[str, Any], complaint: str) -> None:
    sizes = {
        f"{key}_parallel_size": changes.pop(name, 1) for key, name in (("tensor", "tensor"), ("expert", "experts"))
    }
    usual = {"strategy": "fsdp", "adapter": False, "compile": "auto", "policy": False}
    with pytest.raises(ConfigError, match=complaint):
        check_sharing(architecture, **usual | changes | sizes)


@pytest.mark.parametrize("key", ["tensor_parallel_size", "expert_parallel_size"])
def test_as_many_devices_as_it_takes(key: str) -> None:
    trainer = TrainerConfig(accelerator="cpu", devices=4, strategy="fsdp")
    with pytest.raises(ConfigError, match="does not divide the 4 devices"):
        choose_hardware(trainer, PrecisionConfig(), **{key: 3})  # type: ignore[arg-type]
    hardware = choose_hardware(trainer, PrecisionConfig(), **{key: 2})  # type: ignore[arg-type]
    assert (hardware.world_size, hardware.data_parts) == (4, 2 if key.startswith("tensor") else 4)


def test_the_command_line_says_so_before_anything_starts(configure: Callable[..., TrainStage]) -> None:
    with pytest.raises(ConfigError, match="tensor_parallel_size=2 is a part of trainer"):
        train.run(configure(seed=80, tensor_parallel_size=2, trainer__devices=2, trainer__strategy="ddp"))
