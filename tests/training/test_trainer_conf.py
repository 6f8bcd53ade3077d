"""`conf/trainer`, `conf/callbacks`: Lightning's own arguments under their own names, and callbacks that can be made."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_class, instantiate
from lightning.pytorch import Callback, Trainer

from maquette.artifacts import ConfigError
from maquette.training.callbacks import LossSpikeGuard, Progress, RunCheckpoint, Samples, Throughput
from maquette.training.config import CALLBACKS, TrainerConfig
from maquette.training.trainer import parts

CONF = Path(__file__).parents[2] / "conf"

ARGUMENTS = inspect.signature(Trainer).parameters.keys() - {"callbacks", "logger"}


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONF / path).read_text(encoding="utf-8"))
    return content


def test_the_configuration_names_exactly_the_trainers_arguments() -> None:
    assert read("trainer/default.yaml").keys() == ARGUMENTS


def test_so_do_the_settings_with_the_same_defaults() -> None:
    assert {field.name for field in dataclasses.fields(TrainerConfig)} == ARGUMENTS
    assert dataclasses.asdict(TrainerConfig()) == read("trainer/default.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "trainer").glob("*.yaml")))
def test_every_choice_of_a_trainer_sets_arguments_alone(name: str) -> None:
    assert read(f"trainer/{name}.yaml").keys() - {"defaults"} <= ARGUMENTS


def test_the_callbacks_can_be_made() -> None:
    nodes = {name: node for name, node in read("callbacks/default.yaml").items() if name != "defaults"}
    made = instantiate(nodes, _convert_="all")
    assert {name: type(one) for name, one in made.items()} == {
        "checkpoint": RunCheckpoint, "loss_spike": LossSpikeGuard, "throughput": Throughput, "progress": Progress,
        "samples": Samples,
    }  # fmt: skip
    assert all(isinstance(one, Callback) for one in made.values())
    checkpoint = made["checkpoint"]
    assert (checkpoint.every_n_train_steps, checkpoint.seconds, checkpoint.save_last_k) == (None, 120, 2)
    assert made["loss_spike"].factor == 3.0
    assert made["samples"].prompts == nodes["samples"]["prompts"]


def test_the_configuration_of_a_callback_has_all_its_arguments() -> None:
    """What can be set is there to be seen."""
    for name, node in read("callbacks/default.yaml").items():
        if name == "defaults":
            continue
        arguments = set(inspect.signature(get_class(node["_target_"])).parameters)
        assert node.keys() - {"_target_"} == arguments, name


def test_the_files_say_what_the_settings_do() -> None:
    for name, settings in CALLBACKS.items():
        written = read("callbacks/default.yaml")[name]
        assert written.items() <= dataclasses.asdict(settings()).items(), name


def test_no_callbacks() -> None:
    assert read("callbacks/none.yaml") == {}


def test_callbacks_of_somebody_elses_and_one_left_out() -> None:
    nodes = {
        "progress": None,
        "stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "validation/loss", "patience": 7},
    }
    (stop,) = parts("callbacks", nodes, Callback)
    assert (type(stop).__name__, stop.monitor, stop.patience) == ("EarlyStopping", "validation/loss", 7)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"monitor": "validation/loss"}, r"callbacks\.mine has no _target_"),
        ({"_target_": "collections.OrderedDict"}, r"callbacks\.mine: collections\.OrderedDict is not a .*Callback"),
        ({"_target_": "nobody.knows.This"}, r"callbacks\.mine can't be made: ModuleNotFoundError"),
        (
            {"_target_": "maquette.training.callbacks.LossSpikeGuard", "factro": 2.0},
            r"callbacks\.mine can't be made: TypeError.*factro",
        ),
        (
            {"_target_": "maquette.training.callbacks.RunCheckpoint", "save_last_k": 0},
            r"callbacks\.mine can't be made: ConfigError.*save_last_k=0 must be at least 1",
        ),
    ],
)
def test_a_callback_that_can_not_be_made_is_named(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parts("callbacks", {"mine": node}, Callback)
