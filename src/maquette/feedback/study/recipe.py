"""A study's recipe: steps, each a stage with its settings, that take what earlier steps made by name.

    base:   {stage: train,    settings: [size=300k]}
    sft:    {stage: train,    settings: [objective=sft, "checkpoint={base}"]}
    ppo:    {stage: train,    settings: [...], each: {objective.kl_coefficient: [0.02, 0.1]}}

`{name}` in a setting is the folder that the step of that name has made. `each` makes one step of every combination,
named by its values. A recipe that builds on another one takes a step away with `name: null`. Nothing here runs
anything.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from maquette.artifacts.errors import ConfigError

_NAME = re.compile(r"\{([\w .=,+-]+)\}")
_KEYS = {"stage", "settings", "each", "policy"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One call of a stage. `kind`: the name before `each` was worked out; `values`: what `each` gave this one.
    `policy`: whether its run is one of the policies that are compared."""

    name: str
    stage: str
    settings: tuple[str, ...]
    kind: str
    values: Mapping[str, Any]
    policy: bool

    def needs(self) -> list[str]:
        """The steps whose folders it takes."""
        return [name for setting in self.settings for name in _NAME.findall(setting)]

    def filled(self, made: Mapping[str, str]) -> list[str]:
        """The settings with the folders in place of the names. Raises `ConfigError` for a name that no earlier step
        has."""
        for name in self.needs():
            if name not in made:
                raise ConfigError(
                    f"step {self.name} takes {{{name}}}, which no step before it makes.",
                    f"Steps before it: {', '.join(made) or 'none'}.",
                )
        return [_NAME.sub(lambda found: made[found[1]], setting) for setting in self.settings]


def read_steps(raw: Mapping[str, Any]) -> list[Step]:
    """The steps of a recipe, in order. Raises `ConfigError` for an entry that is none, or takes what is made later."""
    steps = [step for name, entry in raw.items() if entry is not None for step in _steps(str(name), entry)]
    before: dict[str, str] = {}
    for step in steps:
        step.filled(before)
        before[step.name] = ""
    return steps


def _steps(name: str, entry: Any) -> Iterator[Step]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("stage"), str) or set(entry) - _KEYS:
        raise ConfigError(
            f"step {name} can't be read.",
            "A step has stage, settings (a list of key=value), and perhaps each (key: list of values) and policy.",
        )
    settings = tuple(str(setting) for setting in entry.get("settings") or ())
    each: Mapping[str, Sequence[Any]] = entry.get("each") or {}
    for values in itertools.product(*each.values()):
        chosen = dict(zip(each, values, strict=True))
        words = [f"{key.rpartition('.')[2]}={value}" for key, value in chosen.items()]
        yield Step(
            name=" ".join([name, *words]),
            stage=str(entry["stage"]),
            settings=(*settings, *(f"{key}={value}" for key, value in chosen.items())),
            kind=name,
            values=chosen,
            policy=bool(entry.get("policy", False)),
        )
