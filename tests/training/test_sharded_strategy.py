"""Weights shared out over two processes (FSDP2) do what one process does, from the loss to the checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.artifacts import ConfigError
from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.training import read_history
from maquette.training.checkpoint_io import AtomicCheckpointIO
from maquette.training.config import PrecisionConfig, TrainerConfig
from maquette.training.devices import choose_hardware
from maquette.training.processes import launch
from support.process_work import VARIANTS, go_on, train_variants
from support.small_examples import example_settings, write_instructions, write_preferences

pytestmark = pytest.mark.usefixtures("no_pictures")

Curve = list[tuple[float, float]]


def apart(one: Curve, other: Curve) -> float:
    assert len(one) == len(other)
    return max(
        abs(a - b) for row, other_row in zip(one, other, strict=True) for a, b in zip(row, other_row, strict=True)
    )


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="two pairs of processes that train", minutes=1)
def test_two_processes_train_and_resume_as_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    alone = train_variants(str(tmp_path / "one"))
    shared = launch(train_variants, str(tmp_path / "two"), 2)
    resumed_alone = go_on(str(tmp_path / "two"))
    resumed_shared = launch(go_on, str(tmp_path / "one"), 2)
    for name in VARIANTS:
        # Muon's iteration is in bfloat16, and slices are added up in another order.
        bound = 2e-3 if name.endswith("muon") else 2e-5
        assert apart(alone[name], shared[name]) < bound, name
        assert apart(alone[name][10:], resumed_alone[name]) < bound, name
        assert apart(alone[name][10:], resumed_shared[name]) < bound, name
    # One format: what two processes write is what one writes.
    one, two = (AtomicCheckpointIO().load_checkpoint(tmp_path / folder / "adamw") for folder in ("one", "two"))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert one["optimizer_states"][0]["state"].keys() == two["optimizer_states"][0]["state"].keys()
    assert all(
        torch.allclose(one["state_dict"][name], two["state_dict"][name], atol=1e-5) for name in one["state_dict"]
    )


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.slow(reason="four pairs of processes that train")
def test_runs_of_the_command_line(configure: Callable[..., TrainStage], tmp_path: Path) -> None:
    """From pretraining to reward modelling: losses as in one process, the model exported, samples written."""
    write_instructions(tmp_path / "sft.jsonl")
    write_preferences(tmp_path / "dpo.jsonl")
    shared: dict[str, Any] = {"trainer__strategy": "fsdp", "trainer__devices": 2}
    base = train.run(configure(seed=77, data__batch_size_tokens=256))
    again = configure(seed=77, data__batch_size_tokens=256, force=True, **shared)
    losses = {"pretrain": (losses_of(base), losses_of(train.run(again)))}
    for kind, examples in (("sft", "sft"), ("dpo", "dpo"), ("reward", "dpo")):
        curves = []
        for name, changes in (("one", {}), ("two", shared)):
            settings = example_settings(
                tmp_path / name, kind, str(base.folder), tmp_path / f"{examples}.jsonl", model__dropout=0.0, **changes
            )
            record = train.run(settings)
            assert (Path(record.folder) / "model" / "model.safetensors").exists()
            assert record.samples or kind == "reward"
            curves.append(losses_of(record))
        losses[kind] = (curves[0], curves[1])
    for kind, (one, two) in losses.items():
        assert len(one) > 2 and torch.allclose(torch.tensor(one), torch.tensor(two), atol=2e-5), kind


def losses_of(record: Any) -> list[float]:
    return [
        row[name]
        for row in read_history(Path(record.folder) / "metrics.jsonl")
        for name in ("train/loss", "validation/loss")
        if name in row
    ]


def test_scaled_losses_are_refused() -> None:
    trainer = TrainerConfig(accelerator="cpu", devices=2, strategy="fsdp")
    with pytest.raises(ConfigError, match="precision=16-mixed scales losses"):
        choose_hardware(trainer, PrecisionConfig(kind="16-mixed"))
