"""The settings of our optimisers and schedules are the arguments of the classes they name, and show what is used."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import check
from maquette.artifacts.targets import arguments_of, import_target
from maquette.optimization.config import (
    NOT_ARGUMENTS,
    OPTIMIZERS,
    SCHEDULERS,
    AdamWConfig,
    LinearSchedulerConfig,
    WSDSchedulerConfig,
    check_optimization,
    planned_warmup,
    planned_weight_decay,
    recipe_remark,
    short_name,
)

CONF = Path(__file__).resolve().parents[2] / "conf"
RMSPROP = {"_target_": "torch.optim.RMSprop"}


@pytest.mark.parametrize(
    ("kind", "first"), [*((one, "params") for one in OPTIMIZERS), *((one, "total") for one in SCHEDULERS)]
)
def test_fields_are_the_arguments(kind: str, first: str) -> None:
    config = (OPTIMIZERS | SCHEDULERS)[kind]
    fields = {one.name for one in dataclasses.fields(config)} - {"_target_", "_partial_", *NOT_ARGUMENTS}
    assert fields == set(arguments_of(import_target(config._target_))) - {first}


@pytest.mark.parametrize(("group", "configs"), [("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS)])
def test_files_show_the_numbers(group: str, configs: dict[str, Any]) -> None:
    """A file for each, with a comment at each number, and the same numbers as the dataclass."""
    files = {path.stem: path for path in (CONF / group).glob("*.yaml")}
    assert set(files) == set(configs)
    for name, path in files.items():
        shown: Any = OmegaConf.to_container(OmegaConf.load(path))
        shown.pop("defaults")
        shown = {key: None if str(value).startswith("${recipe:") else value for key, value in shown.items()}
        plain = dataclasses.asdict(configs[name]())
        assert {key: plain[key] for key in shown} == shown, name
        assert {"_target_", "_partial_"} < set(shown)
        for line in path.read_text().splitlines():
            if line[:1].isalpha() and not line.startswith(("_", "defaults")):
                assert "#" in line, f"{path}: {line}"


def test_what_is_left_to_the_recipe() -> None:
    assert planned_weight_decay(AdamWConfig()) is None
    assert planned_weight_decay(AdamWConfig(weight_decay=0.3)) == 0.3
    assert planned_weight_decay({"_target_": "torch.optim.AdamW"}) is None
    assert planned_weight_decay(RMSPROP) == 0.0  # would be added to the gradient
    assert planned_weight_decay(RMSPROP | {"weight_decay": None}) is None
    assert planned_weight_decay(RMSPROP | {"weight_decay": 0.01}) == 0.01
    assert planned_warmup(LinearSchedulerConfig()) is None
    assert planned_warmup(WSDSchedulerConfig(warmup=0.2)) == 0.2
    assert planned_warmup({"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": None}) == 0.0
    assert (
        planned_warmup({"_target_": "transformers.get_linear_schedule_with_warmup", "num_warmup_steps": None}) is None
    )


def test_the_recipes_rate_for_another_optimiser_is_said() -> None:
    assert recipe_remark(AdamWConfig(), 0.01) is None
    assert recipe_remark(RMSPROP | {"lr": 0.1}, 0.1) is None
    remark = recipe_remark(RMSPROP, 0.0123)
    assert remark is not None and "torch.optim.RMSprop" in remark and "0.0123" in remark and "optimizer.lr" in remark


def test_names() -> None:
    assert [short_name(one()) for one in (OPTIMIZERS | SCHEDULERS).values()] == [*OPTIMIZERS, *SCHEDULERS]
    assert short_name(RMSPROP) == "torch.optim.RMSprop"


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "named"),
    [
        ({}, LinearSchedulerConfig(), "optimizer"),
        (AdamWConfig(), {"T_max": 3}, "scheduler"),
        (AdamWConfig(), {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}, "ReduceLROnPlateau"),
        ({"_target_": "torch.optim.LBFGS"}, LinearSchedulerConfig(), "LBFGS"),
    ],
)
def test_what_can_not_work_is_refused_by_name(optimizer: Any, scheduler: Any, named: str) -> None:
    check_optimization(AdamWConfig(), LinearSchedulerConfig())
    with pytest.raises(ConfigError, match=named):
        check_optimization(optimizer, scheduler)


@pytest.mark.parametrize("betas", [[0.9], [0.9, 1.0], [-0.1, 0.9]])
def test_betas_are_two_shares(betas: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.betas"):
        check(AdamWConfig(betas=betas), "optimizer.")
