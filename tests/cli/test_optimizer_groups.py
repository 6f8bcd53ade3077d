"""`optimizer=` and `scheduler=` on the command line: ours typed, anyone's by a file or by `_target_`."""

from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.optimization.config import AdamWConfig, LinearSchedulerConfig, MuonConfig, WSDSchedulerConfig

RMSPROP = "optimizer._target_=torch.optim.RMSprop"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of a user's with an optimiser and a scheduler."""
    for group, text in (
        ("optimizer", "_target_: torch.optim.RMSprop\n_partial_: true\nlr: 3e-3\nalpha: 0.9\n"),
        (
            "scheduler",
            "_target_: torch.optim.lr_scheduler.CosineAnnealingLR\n_partial_: true\nT_max: ${recipe:steps}\n",
        ),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / "theirs.yaml").write_text(text)
    return tmp_path


def composed(*overrides: str, folder: Path | None = None) -> TrainStage:
    settings = compose(STAGES["train"], overrides, folder)
    assert isinstance(settings, TrainStage)
    return settings


def test_ours_are_typed_and_open_where_the_recipe_decides() -> None:
    plain = composed()
    assert (plain.optimizer, plain.scheduler) == (AdamWConfig(), LinearSchedulerConfig())
    other = composed("optimizer=muon", "optimizer.muon_lr=0.1", "scheduler=wsd", "scheduler.branches=[1m]")
    assert other.optimizer == MuonConfig(muon_lr=0.1)
    assert other.scheduler == WSDSchedulerConfig(branches=["1m"])
    assert composed("optimizer.betas=[0.8,0.95]", "optimizer.lr=1e-3").optimizer == AdamWConfig(
        lr=1e-3, betas=[0.8, 0.95]
    )


def test_a_users_file(mine: Path) -> None:
    settings = composed("optimizer=theirs", "optimizer.alpha=0.8", "scheduler=theirs", folder=mine)
    assert settings.optimizer == {"_target_": "torch.optim.RMSprop", "_partial_": True, "lr": 3e-3, "alpha": 0.8}
    assert settings.scheduler["T_max"] is None  # the number of steps is filled in when the scheduler is built


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([RMSPROP], {}),
        ([RMSPROP, "optimizer.alpha=0.9", "optimizer.lr=0.01"], {"alpha": 0.9, "lr": 0.01}),
        (["optimizer.weight_decay=0.2", RMSPROP], {"weight_decay": 0.2}),
    ],
)
def test_another_class_keeps_what_it_knows(overrides: list[str], expected: dict[str, Any]) -> None:
    """Nothing open is kept: the recipe's weight decay is AdamW's."""
    optimizer = composed(*overrides).optimizer
    shared = {"_partial_": True, "eps": 1e-8, "maximize": False, "capturable": False, "differentiable": False}
    assert optimizer == {"_target_": "torch.optim.RMSprop", **shared, **expected}


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["optimizer.lrr=1"], "optimizer.lr"),
        (["optimizer.muon_lr=1"], "optimizer=muon"),
        (["optimizer=adam"], "adamw"),
        (["optimizer.lr=fast"], "optimizer.lr"),
        (["optimizer.lr=-1"], "optimizer.lr"),
        (["optimizer.betas=[0.9]"], "optimizer.betas"),
        (["optimizer._target_=torch.optim.RMSprp"], "RMSprop"),
        ([RMSPROP, "optimizer.alhpa=0.9"], "optimizer.alpha"),
        ([RMSPROP, "optimizer.betas=[0.8,0.9]"], "optimizer.betas"),
        (["optimizer=theirs", "+optimizer.alhpa=0.9"], "optimizer.alpha"),
        (["scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"], "ReduceLROnPlateau"),
        (["scheduler.decay_shape=sqrt"], "scheduler=wsd"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(overrides: list[str], named: str, mine: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(*overrides, folder=mine)
    assert named in str(caught.value)
