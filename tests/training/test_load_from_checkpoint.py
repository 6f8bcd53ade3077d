"""A run's checkpoint is opened by Lightning's `load_from_checkpoint(path)` alone: the same weights, the same logits."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.cli import train
from maquette.cli.command_line.config import TrainStage
from maquette.data.config import PhaseConfig
from maquette.model.loading import load_checkpoint, load_reward_model, model_folder
from maquette.objectives import (
    DirectPreferenceOptimization,
    Objective,
    Pretraining,
    RewardModelling,
    SupervisedFineTuning,
)
from maquette.objectives.ppo import ProximalPolicyOptimization
from maquette.training import RunRecord, fit
from maquette.training.checkpoint_io import CheckpointFolder
from support.one_policy import make_job
from support.small_examples import base_settings, example_settings, write_instructions, write_preferences

TOKENS = torch.randint(1, 250, (3, 12), generator=torch.Generator().manual_seed(0))
EXAMPLES: dict[str, type[Objective]] = {
    "sft": SupervisedFineTuning,
    "reward": RewardModelling,
    "dpo": DirectPreferenceOptimization,
}


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> list[Objective]:
    """The modules that are trained, as they are after it."""
    built: list[Objective] = []

    def remember(self: Objective) -> None:
        built.append(self)

    monkeypatch.setattr(Objective, "on_train_end", remember, raising=False)
    return built


@pytest.fixture(scope="module")
def base(prepared: tuple[Path, Path]) -> RunRecord:
    return train.run(base_settings(*prepared))


@pytest.fixture
def start(base: RunRecord, tmp_path: Path) -> Path:
    """A copy of the base, which can be removed."""
    folder = tmp_path / "start"
    shutil.copytree(model_folder(Path(base.folder)), folder)
    return folder


def newest(run: Path) -> Path:
    path = CheckpointFolder(run / "checkpoints").newest(print)
    assert path is not None
    return path[1]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    output: torch.Tensor = model.eval()(TOKENS)
    return output


def assert_same(loaded: Objective, trained: Objective, path: Path) -> None:
    """Weights are those of the file and of the trained module, and so are logits and values."""
    state = torch.load(path, weights_only=True)["state_dict"]
    weights, others = loaded.state_dict(), trained.state_dict()
    assert weights.keys() == state.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, state[name]), name
        assert torch.equal(value, others[name]), name
    assert torch.equal(logits(loaded.model), logits(trained.model))
    assert loaded.config == trained.config
    assert loaded.optimization.describe() == trained.optimization.describe()
    assert loaded.hparams == trained.hparams


def test_pretraining(configure: Callable[..., TrainStage], modules: list[Objective]) -> None:
    record = train.run(configure(seed=60))
    path = newest(Path(record.folder))
    loaded = Pretraining.load_from_checkpoint(path)
    assert_same(loaded, modules[-1], path)
    assert torch.equal(logits(loaded.model), logits(load_checkpoint(record.folder)[0]))


def test_pretraining_in_phases(configure: Callable[..., TrainStage], modules: list[Objective]) -> None:
    """The phase that the run has reached sets the base of its positions."""
    phases = [PhaseConfig(start=0.5, rope_theta=50.0)]
    record = train.run(configure(seed=61, mixture__phases=phases))
    path = newest(Path(record.folder))
    loaded = Pretraining.load_from_checkpoint(path)
    assert loaded.rope_thetas == modules[-1].rope_thetas == [10_000.0, 50.0]
    assert_same(loaded, modules[-1], path)
    assert torch.equal(logits(loaded.model), logits(load_checkpoint(record.folder)[0]))


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("removed", [False, True])
def test_objectives_over_examples(
    kind: str, removed: bool, start: Path, prepared: tuple[Path, Path], tmp_path: Path, modules: list[Objective]
) -> None:
    write = write_instructions if kind == "sft" else write_preferences
    file = write(tmp_path / "examples.jsonl")
    settings = example_settings(prepared[0], kind, str(start), file, seed=62 + removed, objective__epochs=0.5)
    record = train.run(settings)
    if removed:
        shutil.rmtree(start)
    path = newest(Path(record.folder))
    loaded = EXAMPLES[kind].load_from_checkpoint(path)
    assert_same(loaded, modules[-1], path)
    load: Any = load_reward_model if kind == "reward" else load_checkpoint
    assert torch.equal(logits(loaded.model), logits(load(record.folder)[0]))


@pytest.mark.parametrize("changes", [{}, {"value_init": "shared"}, {"advantage": "group", "group_size": 4}], ids=str)
@pytest.mark.parametrize("removed", [False, True])
def test_policies(changes: dict[str, Any], removed: bool, tmp_path: Path, modules: list[Objective]) -> None:
    job = make_job(tmp_path, {"num_iterations": 1, **changes})
    record = fit(job)
    if removed:
        assert job.spec.checkpoint is not None
        shutil.rmtree(job.spec.checkpoint)
    path = newest(job.folder)
    loaded, trained = ProximalPolicyOptimization.load_from_checkpoint(path), modules[-1]
    assert isinstance(trained, ProximalPolicyOptimization)
    assert_same(loaded, trained, path)
    assert type(loaded.value) is type(trained.value)
    assert (loaded.value is None) == (changes.get("advantage") == "group")
    if not changes:
        assert torch.equal(logits(loaded.value), logits(trained.value))
    assert loaded.kl_coefficient == trained.kl_coefficient
    assert torch.equal(logits(loaded.model), logits(load_checkpoint(record.folder)[0]))


def test_it_can_be_trained_on_by_lightning_alone(configure: Callable[..., TrainStage]) -> None:
    """Somebody's own Trainer and loader."""
    from lightning.pytorch import Trainer
    from torch.utils.data import DataLoader

    record = train.run(configure(seed=60))
    loaded = Pretraining.load_from_checkpoint(newest(Path(record.folder)))
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(loaded, DataLoader(TOKENS.repeat(2, 1), batch_size=3))  # type: ignore[arg-type]
    assert trainer.global_step == 2
    assert any(not torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
