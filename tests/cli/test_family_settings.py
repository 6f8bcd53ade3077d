"""The settings of a run, read again from its spec, and as words of a command line that mean the same."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts.targets import node_values
from maquette.cli.command_line.composition import compose, plain_settings, words_of
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.predicted import settings_of_run
from maquette.optimization.config import LinearSchedulerConfig, MuonConfig, WSDSchedulerConfig
from maquette.recipe.run_spec import RunSpec
from support.small_specs import make_spec

COSINE = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_partial_": True, "T_max": None}
RMSPROP = {"_target_": "torch.optim.RMSprop", "_partial_": True, "alpha": 0.9}


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "overrides"),
    [
        (MuonConfig(muon_lr=0.1), WSDSchedulerConfig(decay=0.3), ["optimizer=muon", "scheduler=wsd"]),
        (RMSPROP, LinearSchedulerConfig(final=0.2), ["optimizer._target_=torch.optim.RMSprop"]),
        (MuonConfig(), COSINE, ["optimizer=muon", f"scheduler._target_={COSINE['_target_']}"]),
    ],
)
def test_optimisers_and_schedulers_of_every_kind(optimizer: Any, scheduler: Any, overrides: list[str]) -> None:
    config = TrainStage(size="20k", optimizer=optimizer, scheduler=scheduler)
    spec = make_spec(dataclasses.asdict(config))
    read = settings_of_run(RunSpec.from_json(spec.to_json()), Path("run.json"))
    assert (type(read.optimizer), type(read.scheduler), read.size) == (type(optimizer), type(scheduler), "20k")
    numbers = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}  # which the recipe has filled in
    assert node_values(read.optimizer) == node_values(optimizer) | numbers
    again = make_spec(dataclasses.asdict(read), recipe=spec)
    assert again.fingerprint == spec.fingerprint and not again.differences(spec)

    written = words_of(config, lambda key: key.startswith(("size", "optimizer", "scheduler")))
    assert written[: len(overrides)] == overrides
    composed, usual = compose(STAGES["train"], written), plain_settings(compose(STAGES["train"]))
    assert [type(composed.optimizer), type(composed.scheduler)] == [type(optimizer), type(scheduler)]
    assert composed.size == "20k" and node_values(composed.optimizer).items() >= node_values(optimizer).items()
    others = {key: value for key, value in plain_settings(composed).items() if key in usual and usual[key] != value}
    assert {key.partition(".")[0] for key in others} <= {"size", "optimizer", "scheduler"}
