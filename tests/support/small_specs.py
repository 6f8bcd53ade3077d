"""A run's spec from a recipe, without data: for tests of what reads specs and records."""

import dataclasses
from typing import Any

from maquette.cli.command_line.config import TrainStage
from maquette.recipe import resolve
from maquette.recipe.run_spec import RunSpec

DIGESTS = {"tokens": "1" * 64, "tokenizer": "2" * 64, "corpus": "3" * 64}


def train_settings(**sections: Any) -> dict[str, Any]:
    """The settings of `maquette train` as they stand by default; `sections` are put over them, a level deep."""
    settings = dataclasses.asdict(TrainStage())
    for name, value in sections.items():
        settings[name] = {**(settings.get(name) or {}), **value} if isinstance(value, dict) else value
    return settings


def make_spec(settings: dict[str, Any] | None = None, **changes: Any) -> RunSpec:
    """A pretraining run of 300k parameters on 4.3m tokens; `changes` replace arguments of `RunSpec.of`."""
    recipe = changes.pop("recipe", None) or resolve(size="300k", tokens="4.3m", vocab_size=1024, sequence_length=128)
    arguments: dict[str, Any] = {
        "label": "300k-4.3m", "objective": "pretrain", "tokenizer": "tokenizer", "digests": DIGESTS, **changes,
    }  # fmt: skip
    return RunSpec.of(recipe, settings or train_settings(data={"sequence_length": 128}), **arguments)
