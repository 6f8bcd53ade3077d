"""Recipe files: the constants of the recipe as YAML, with what they rest on.

    kind: standard
    learning_rate: 0.183
    lr_width_exponent: -0.94
    ...
    source: learning rates of learning_rate-1a2b3c4d, 25 runs of 4 sizes
    provenance: {runs: [...], intervals: {lr_width_exponent: [-1.02, -0.86]}, fitted: 2026-01-01T10:00:00+00:00}

Keys that are left out keep the standard recipe's value. `recipe=<path>` takes any file; `recipe=<name>` one that a fit
has left in `<outputs>/recipes/`, or an option of `conf/recipe/`.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import write_text
from maquette.artifacts.reading import load_yaml, short
from maquette.artifacts.renamed import renamed_key
from maquette.artifacts.settings import check, nearest
from maquette.artifacts.strangers import check_settings
from maquette.recipe.rules import HyperparameterRules

FOLDER = "recipes"
"""Below `outputs`: recipes that fits have written."""


def recipe_path(name: str, outputs: Path | str) -> Path:
    """Where the recipe `name` of these outputs lies."""
    return Path(outputs) / FOLDER / f"{name}.yaml"


def find_recipe(name: str, outputs: Path | str) -> Path | None:
    """The file that `recipe=<name>` means: a path, or a recipe of these outputs; None where there is none."""
    for candidate in (Path(name), recipe_path(name, outputs)):
        if candidate.is_file():
            return candidate
    return None


def load_recipe(path: Path | str) -> HyperparameterRules:
    """The constants in a recipe file, checked. Raises `ConfigError` naming the file and the key that is wrong."""
    raw = load_yaml(path, hint="It is YAML with a line for each key.", kind=ConfigError)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds no keys.", "A recipe has lines such as rate: 0.2.")
    fields = {field.name: field for field in dataclasses.fields(HyperparameterRules)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in fields:
            near = nearest(str(key), list(fields))
            hint = f"Did you mean '{near}'?" if near else f"Keys: {', '.join(fields)}."
            if new := renamed_key(f"recipe.{key}"):
                hint = f"It is now '{new.removeprefix('recipe.')}'."
            raise ConfigError(f"{path}: unknown key '{short(key)}'.", hint)
        check_settings({key: value}, path)
        values[key] = _typed(path, key, value, getattr(HyperparameterRules(), key))
    rules = HyperparameterRules(**values)
    try:
        check(rules, "recipe.")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from None
    return rules


def save_recipe(rules: HyperparameterRules, path: Path | str) -> Path:
    """Writes a recipe file atomically, every constant in it; returns its path."""
    import yaml

    text = yaml.safe_dump(dataclasses.asdict(rules), sort_keys=False, allow_unicode=True, width=110)
    write_text(path, f"# {rules.source}\n# Use it with recipe={Path(path).stem} (or this file's path).\n{text}")
    return Path(path)


def _typed(path: Path | str, key: str, value: Any, default: Any) -> Any:
    """`value` in the type of the default: YAML reads 4e6 as text."""
    kind = type(default)
    if kind in (int, float):
        try:
            number = float(value)
            if isinstance(value, bool) or not math.isfinite(number) or (kind is int and number != int(number)):
                raise ValueError
            return kind(number)
        except (TypeError, ValueError, OverflowError):
            word = "a whole number" if kind is int else "a number"
            raise ConfigError(f"{path}: {key}={short(value)} is not {word}.") from None
    if not isinstance(value, kind):
        raise ConfigError(f"{path}: {key}={short(value)} is not {'text' if kind is str else 'a table'}.")
    return value
