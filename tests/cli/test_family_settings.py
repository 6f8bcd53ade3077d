"""The settings of runs, read again, and the words that make another member of their family."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from maquette.artifacts.settings import walk
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.family_settings import named_nodes, read_settings, settings_of
from maquette.optimization.config import LinearSchedulerConfig, MuonConfig, WSDSchedulerConfig

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
def test_optimisers_and_schedulers_of_every_kind(
    optimizer: Any, scheduler: Any, overrides: list[str], tmp_path: Path
) -> None:
    config = TrainStage(size="20k", optimizer=optimizer, scheduler=scheduler)
    nested: dict[str, Any] = {}
    for key, value in settings_of(config).items():
        *sections, name = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(nested))
    read = read_settings(tmp_path)
    assert (read.optimizer, read.scheduler, read.size) == (optimizer, scheduler, "20k")
    assert named_nodes(read) == overrides
    composed = compose(STAGES["train"], overrides)
    assert [type(composed.optimizer), type(composed.scheduler)] == [type(optimizer), type(scheduler)]
    # Of a group of parts each part has settings of its own, a configuration made in Python none.
    grouped = ("callbacks", "logger")
    keys, others = (
        {one.key for one in walk(settings) if one.key.partition(".")[0] not in grouped}
        for settings in (composed, config)
    )
    assert keys == others
