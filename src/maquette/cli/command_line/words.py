"""Settings as words of `maquette train` that mean the same: for lines to type, and for the sweep of the demo."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from maquette.artifacts.settings import flatten
from maquette.artifacts.targets import target_of
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.overrides import literal
from maquette.cli.command_line.registry import STAGES
from maquette.optimization.config import short_name


def words_of(config: Any, counts: Callable[[str], bool]) -> list[str]:
    """The settings under the keys that count which `maquette train` has otherwise where nothing is given. `config`:
    its own, or of a stage that has them too."""
    options = [
        f"{name}._target_={target_of(node)}" if isinstance(node, Mapping) else f"{name}={short_name(node)}"
        for name in ("optimizer", "scheduler")
        if type(node := getattr(config, name)) is not type(getattr(TrainStage(), name))
    ]
    usual = plain_settings(compose(STAGES["train"], options))
    sections = {key.partition(".")[0] for key in usual}
    changed = {
        key: value
        for key, value in plain_settings(config).items()
        if key.partition(".")[0] in sections and value != usual.get(key)
    }
    return options + [
        f"{'' if key in usual else '++'}{key}={literal(value)}" for key, value in changed.items() if counts(key)
    ]


def plain_settings(config: Any) -> dict[str, Any]:
    """Every setting of a stage by its dotted key, as plain values."""
    return flatten(dataclasses.asdict(config))
