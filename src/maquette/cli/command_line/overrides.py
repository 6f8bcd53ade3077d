"""Overrides as a person types them, and as Hydra is to read them.

`prediction=653540e9` is a name though it looks like a number, `mixture.weights.code=0.5` may name a new entry of a
table, and `recipe=` takes a file: what Hydra has signs for (quotes, `++`) is put in here, so that nobody types it.

A recipe that a fit has written is chosen like an option of `conf/recipe/`: the file is read and checked here and made
known to Hydra under a name of its own, so that `recipe.learning_rate=0.1` behind it still wins, and a sweep may compare
recipes: recipe=standard,mup,outputs/recipes/mine.yaml.
"""

import dataclasses
import functools
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.reading import load_yaml, short
from maquette.artifacts.settings import nearest, walk
from maquette.cli.command_line.help import groups
from maquette.cli.command_line.registry import Stage
from maquette.recipe.recipe_file import FOLDER, find_recipe, load_recipe
from maquette.tracking.config import hide_login

_NUMERAL = re.compile(r"[+-]?[0-9_]*\.?[0-9_]+(?:[eE][+-]?[0-9_]+)?")
"""What Hydra reads as a number, and would write differently as text: `007`, `653540e9`, `1.50`."""


_PLAIN = re.compile(r"[\w./:+-]*", re.ASCII)
"""What Hydra reads as it stands, without asking its parser."""

_WORD = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
"""A text that needs no quotes."""

_OPENING = ("'", '"', "[", "{", "$")
"""How a value begins whose signs are meant for Hydra."""


def hydra_overrides(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> list[str]:
    """The overrides with Hydra's signs in them. Raises `ConfigError` for one that can't be read, or is no recipe."""
    for path in sorted(config_folder.rglob("*.yaml")) if config_folder else ():
        _check_yaml(path, path.stat().st_mtime_ns)
    overrides = as_text(stage, [_without_login(text) for text in overrides])
    files = groups(stage, config_folder)
    options = files.get("recipe")
    arguments = opened(stage, with_recipe_files(overrides, options) if options else overrides)
    for override in parse_overrides(arguments):
        _check_value(override, files)
    return arguments


def _check_value(override: Override, files: Mapping[str, Sequence[str]]) -> None:
    """Raises `ConfigError` for values that Hydra and OmegaConf do not refuse themselves, but fail at: what is not the
    name of a group's file, and numbers larger than any float."""
    key, value = override.key_or_group, override.value()
    shown = short(f"{key}={value}")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ConfigError(f"{shown} is too large.", "Write large numbers like 1e21.")
    group = "/" in key or (key in files and override.type == OverrideType.CHANGE)
    no_name = isinstance(value, list) and not all(isinstance(one, str) for one in value)
    nothing = key == "hydra" and override.type != OverrideType.DEL and not isinstance(value, str | list)
    if override.type == OverrideType.DEL and "." not in key and not isinstance(value, str | None):
        raise ConfigError(f"~{shown} is not known.", f"Write ~{key} alone.")
    if nothing or ((group or key == "hydra") and (no_name or isinstance(value, int | float | None))):
        raise ConfigError(f"{shown} is not known.", f"Allowed: {', '.join(files[key])}." if key in files else "")


@functools.cache
def _check_yaml(path: Path, changed: int) -> None:
    """Raises `ConfigError` with the name of a file of `--config-dir` that is no YAML; Hydra's errors have none."""
    load_yaml(path, kind=ConfigError)


def _without_login(text: str) -> str:
    """An override whose address of a tracking server has no password, so that what Hydra writes down has none."""
    key, sign, value = text.partition("=")
    if not re.fullmatch(r"[+]{0,2}(logger|tracking)(\.[\w.]+)?", key):
        return text
    return key + sign + re.sub(r"[a-z][\w+.-]*://[^\s'\",\]}]+", lambda result: hide_login(result[0]), value)


def as_text(stage: Stage, overrides: Sequence[str]) -> list[str]:
    """The overrides with quotes where the setting holds text that Hydra would read as something else, or not at all.

    A name of hexadecimal digits may look like a number (`prediction=653540e9`), and Hydra would hand on another
    spelling of it; `~/x` (the home folder), brackets and letters beyond ASCII it can't read without quotes.
    """
    names, tables = _texts(stage), free_form(stage)
    lines = []
    for text in overrides:
        key, sign, value = text.partition("=")
        plain = key.lstrip("+")
        if not sign or not (plain in names or plain == "recipe" or plain.startswith(tuple(f"{t}." for t in tables))):
            lines.append(text)
            continue
        parts = value.split(",")
        if plain in names:
            parts = [f"'{part}'" if _NUMERAL.fullmatch(part) else part for part in parts]
        value = ",".join(parts)
        if (
            not _PLAIN.fullmatch(value)
            and not value.lstrip().startswith(_OPENING)
            and not _is_readable(f"{key}={value}")
        ):
            parts = [part if _is_readable(f"{key}={part}") else literal(_at_home(part)) for part in parts]
        lines.append(f"{key}={','.join(parts)}")
    return lines


def _is_readable(override: str) -> bool:
    """Whether Hydra's grammar has such an override."""
    try:
        OverridesParser.create().parse_override(override)
    except (HydraException, ValueError, RecursionError):
        return False
    return True


def _at_home(part: str) -> str:
    return str(Path(part).expanduser()) if part.startswith("~/") or part == "~" else part


def opened(stage: Stage, overrides: Sequence[str]) -> list[str]:
    """Overrides of free-form settings (`mixture.weights.code=0.5`) in the words by which Hydra lets new entries in."""
    tables = free_form(stage)
    # Another class has other arguments: optimizer._target_=torch.optim.RMSprop optimizer.alpha=0.9
    others = tuple(text.partition("_target_=")[0] for text in overrides if re.match(r"\w[\w.]*\._target_=", text))
    return [f"++{text}" if _within(text, tables) or text.startswith(others) else text for text in overrides]


def _within(text: str, tables: Sequence[str]) -> bool:
    """Whether an override is of a table's entry, or a whole table; `callbacks=none` chooses a file."""
    key, _, value = text.partition("=")
    return any(key.startswith(f"{table}.") or (key == table and value.lstrip().startswith("{")) for table in tables)


@functools.cache
def free_form(stage: Stage) -> tuple[str, ...]:
    """Settings that hold a table with keys of the user's choosing."""
    return tuple(setting.key for setting in walk(stage.config) if isinstance(setting.default, dict))


@functools.cache
def _texts(stage: Stage) -> frozenset[str]:
    return frozenset(setting.key for setting in walk(stage.config) if setting.text)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Hydra's own reading of `key=value` words. Raises `ConfigError` for one that can't be read."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except (HydraException, ValueError, RecursionError) as error:
            key, _, value = text.partition("=")
            raise ConfigError(
                f"can't read '{short(text)}': {short(error) or 'nested too deeply'}",
                f"A value as it stands needs quotes inside; type {short(shlex.quote(f'{key}={literal(value)}'))}.",
            ) from None
    return parsed


def literal(value: Any) -> str:
    """A value as Hydra's command line reads it back: in a text nothing is Hydra's or OmegaConf's sign."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(literal, value)) + "]"
    if _WORD.fullmatch(str(value)) and str(value).lower() not in ("null", "true", "false", "nan", "inf"):
        return str(value)
    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", str(value))  # no interpolation
    text = re.sub(r"(\\*)'", lambda match: 2 * match[1] + "\\'", text)
    return "'" + re.sub(r"(\\+)$", lambda match: 2 * match[1], text) + "'"


_KEY = "recipe"
_registered: dict[str, str] = {}
"""Files after `recipe=`, made known to Hydra as options: option -> what was typed."""


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
    override = parse_overrides([text])[0]
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
