"""`recipe=<file>` on the command line: a recipe that a fit has written is chosen like an option of `conf/recipe/`.

The file is read and checked here and made known to Hydra under a name of its own, so that `recipe.learning_rate=0.1`
behind it still wins, and a sweep may compare recipes: recipe=standard,mup,outputs/recipes/mine.yaml.
"""

import dataclasses
from collections.abc import Sequence

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.settings import nearest
from maquette.recipe.recipe_file import FOLDER, find_recipe, load_recipe

_KEY = "recipe"
_registered: dict[str, str] = {}
"""Option -> what was typed."""


def with_recipe_files(overrides: Sequence[str], options: Sequence[str]) -> list[str]:
    """The overrides with files after `recipe=` replaced by options that Hydra knows. `options`: those of the group.

    Raises `ConfigError` where a value is neither an option nor a file, or the file is no recipe.
    """
    outputs = next((text.partition("=")[2] for text in reversed(overrides) if text.startswith("outputs=")), "outputs")
    return [_replaced(text, outputs.strip("'\""), options) for text in overrides]


def _replaced(text: str, outputs: str, options: Sequence[str]) -> str:
    key, _, value = text.partition("=")
    if key != _KEY:
        return text
    override = OverridesParser.create().parse_override(text)
    values = list(override.sweep_string_iterator()) if override.is_choice_sweep() else [value.strip("'\"")]
    return f"{key}={','.join(_option(str(one), outputs, options) for one in values)}"


def _option(value: str, outputs: str, options: Sequence[str]) -> str:
    if value in options or value in _registered:
        return value
    path = find_recipe(value, outputs)
    if path is None:
        close = nearest(value, options)
        hint = f"Did you mean '{close}'? " if close else ""
        raise ConfigError(
            f"{_KEY}={value} is not known: it is no option, no file, and not in {outputs}/{FOLDER}.",
            f"{hint}Options: {', '.join(options)}.",
        )
    values = dataclasses.asdict(load_recipe(path))
    option = f"{path.stem.replace(' ', '_')}-{digest(values)[:8]}"
    ConfigStore.instance().store(group=_KEY, name=option, node=values, provider="maquette")
    _registered[option] = value
    return option
