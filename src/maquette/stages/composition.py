"""From a command line to checked settings: Hydra composes `conf/`, the dataclasses of `stages/config.py` judge it.

A misspelt key is answered with the nearest right one, a wrong value with the allowed ones, before anything heavy loads.
"""

import dataclasses
import functools
import importlib
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import check, nearest, walk
from maquette.stages import STAGES, Stage
from maquette.stages.config import StageConfig
from maquette.stages.folders import config_folders
from maquette.stages.help import groups
from maquette.stages.recipe_choice import is_recipe_file, with_recipe_files

_EXPANDING = "prediction"
"""The setting that stands for others; see `Stage.expand`."""

_NUMERAL = re.compile(r"[+-]?[0-9_]*\.?[0-9_]+(?:[eE][+-]?[0-9_]+)?")
"""What Hydra reads as a number, and would write differently as text: `007`, `653540e9`, `1.50`."""

_WORDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


@functools.cache
def register_schema(name: str) -> None:
    """Makes a stage's dataclass known to Hydra as `schema/<stage>`, and the variants of a section, which its files
    choose among, as `<section>/<variant>_settings`; once in a process."""
    store, config = ConfigStore.instance(), STAGES[name].config
    types = typing.get_type_hints(config)
    variants = {
        field.name: field.metadata["variants"] for field in dataclasses.fields(config) if field.metadata.get("variants")
    }
    # OmegaConf lets a section become a kind of what it is, so it begins as what all variants have in common.
    common: dict[str, Any] = {name: None if types[name] is Any else types[name]() for name in variants}
    schema = config(**common)
    store.store(group="schema", name=name, node=schema, package="_global_", provider="maquette")
    for section, classes in variants.items():
        for variant, settings in classes.items():
            for ending in ("schema", "settings"):
                store.store(group=section, name=f"{variant}_{ending}", node=settings, provider="maquette")


def compose(stage: Stage, overrides: Sequence[str] = (), config_folder: Path | None = None) -> StageConfig:
    """The checked settings of one run. Raises `ConfigError` that names the key and what is allowed."""
    if stage.expand is not None and any(text.startswith(f"{_EXPANDING}=") for text in overrides):
        module = importlib.import_module(f"maquette.stages.{stage.expand}")
        overrides = module.expand(stage, as_text(stage, overrides), config_folder)
    return compose_expanded(stage, overrides, config_folder)


def compose_expanded(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> StageConfig:
    """The same, with nothing put in the place of the overrides."""
    composed = compose_raw(stage, overrides, config_folder)
    try:
        settings = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise _explained(stage, error) from None
    if not isinstance(settings, stage.config):
        raise ConfigError(
            f"the settings of {stage.name} are not of its kind.", "Is a defaults list missing in your YAML file?"
        )
    check(settings)
    return settings


def open_sections(stage: Stage) -> list[str]:
    """Sections that take anyone's class by its `_target_`."""
    types = typing.get_type_hints(stage.config)
    return [
        field.name
        for field in dataclasses.fields(stage.config)
        if field.metadata.get("variants") and types[field.name] is Any
    ]


def compose_raw(
    stage: Stage, overrides: Sequence[str], config_folder: Path | None = None, *, hydra: bool = False
) -> DictConfig:
    """What Hydra composes, unchecked; with `hydra` its own node as well."""
    overrides = known_recipes(stage, as_text(stage, overrides), config_folder)
    check_overrides(stage, overrides, config_folder)
    register_schema(stage.name)
    extra = [f"hydra.searchpath=[file://{config_folder}]"] if config_folder else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_folders()[0])):
            composed = hydra_compose(stage.name, [*extra, *opened(stage, overrides)], return_hydra_config=hydra)
        for override in parse_overrides(overrides):
            # Hydra would merge a whole table given on the command line into the one of the group's file
            if override.key_or_group in _free_form(stage) and isinstance(override.value(), dict):
                OmegaConf.update(composed, override.key_or_group, override.value(), merge=False)
        return composed
    except (HydraException, OmegaConfBaseException) as error:
        raise _explained(stage, error) from None


def as_text(stage: Stage, overrides: Sequence[str]) -> list[str]:
    """The overrides with numerals in quotes where the setting holds text: a name of hexadecimal digits may look like
    a number (`prediction=653540e9`), and Hydra would hand on another spelling of it."""
    names = {setting.key for setting in walk(stage.config) if setting.text}
    found = []
    for text in overrides:
        key, _, value = text.partition("=")
        parts = value.split(",")
        if key in names and any(_NUMERAL.fullmatch(part) for part in parts):
            value = ",".join(f"'{part}'" if _NUMERAL.fullmatch(part) else part for part in parts)
            text = f"{key}={value}"
        found.append(text)
    return found


def known_recipes(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> list[str]:
    """The overrides with recipe files replaced by options that Hydra knows."""
    options = groups(stage, config_folder).get("recipe")
    return with_recipe_files(overrides, options) if options else list(overrides)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Hydra's own reading of `key=value` words. Raises `ConfigError` for one that can't be read."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
            raise ConfigError(
                f"can't read '{text}'.",
                "Values with spaces, commas, brackets or quotes need quotes inside: \"key='a, b'\".",
            ) from None
    return parsed


def opened(stage: Stage, overrides: Sequence[str]) -> list[str]:
    """Overrides of free-form settings (`mixture.weights.code=0.5`) in the words by which Hydra lets new entries in."""
    free = _free_form(stage)
    return [f"++{text}" if text.partition("=")[0].startswith(free) else text for text in overrides]


def _free_form(stage: Stage) -> tuple[str, ...]:
    """Settings that hold a table with keys of the user's choosing."""
    return tuple(setting.key for setting in walk(stage.config) if isinstance(setting.default, dict)) or ("\0",)


def check_overrides(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> None:
    """Raises `ConfigError` for the first override whose key or group option is not known to the stage."""
    options = groups(stage, config_folder)
    settings = {setting.key: setting for setting in walk(stage.config)}
    sections = {key.rpartition(".")[0] for key in settings} - {""}
    for override in parse_overrides(overrides):
        key = override.key_or_group
        if key in options:
            for value in _values(override):
                if value is None or isinstance(value, dict) or (key == "recipe" and is_recipe_file(str(value))):
                    continue
                if str(value) not in options[key]:
                    close = nearest(str(value), options[key])
                    hint = f"Did you mean '{close}'? " if close else ""
                    raise ConfigError(f"{key}={value} is not known.", f"{hint}Allowed: {', '.join(options[key])}.")
        elif not (
            key in settings
            or key in sections
            or key.partition(".")[0] == "hydra"
            or key.startswith("hydra/")
            or key.startswith(_free_form(stage))
            or key.partition(".")[0] in open_sections(stage)  # OmegaConf knows what is in them
        ):
            raise unknown_key(stage, key, list(options))


def unknown_key(stage: Stage, key: str, more: Sequence[str] = ()) -> ConfigError:
    """The error for a key that a stage does not have, with the nearest one that it has."""
    known = [*(setting.key for setting in walk(stage.config)), *more]
    close = nearest(key, known)
    hint = f"Did you mean '{close}'?" if close else f"maquette {stage.name} --help lists the keys."
    return ConfigError(f"unknown key '{key}'.", hint)


def _not_of_variant(stage: Stage, key: str) -> ConfigError | None:
    """The error for a setting that other variants of its section have."""
    for setting in walk(stage.config):
        if setting.key == key and setting.variants:
            section = key.partition(".")[0]
            chosen = " or ".join(f"{section}={name}" for name in setting.variants)
            return ConfigError(f"{key} has no effect here: it is a setting of {chosen}.", "Leave it out.")
    return None


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator()) if override.is_choice_sweep() else []
    return [override.value()] if not override.is_delete() else []


def _explained(stage: Stage, error: BaseException) -> ConfigError:
    """A line for people from what Hydra or OmegaConf raise: the innermost error is the one that knows."""
    while error.__cause__ is not None:
        error = error.__cause__
    text, key = str(error), str(getattr(error, "full_key", None) or "")
    if found := re.search(r"Key '([^']+)' (?:is )?not in '", text):
        return _not_of_variant(stage, key) or unknown_key(stage, key or found[1])
    if found := re.search(r"Value '(.*?)'.*could not be converted to (\w+)", text, re.DOTALL):
        return ConfigError(f"{key}={found[1]} is not {_WORDS.get(found[2], found[2])}.", _help_of(stage, key))
    if "Optional" in text or "None" in text:
        return ConfigError(f"{key} can't be null.", _help_of(stage, key))
    if found := re.search(r"(?:Could not find|Could not load|Cannot find primary config) '?([^'\n]+)'?", text):
        return ConfigError(
            f"there is no config '{found[1].strip()}'.", f"maquette {stage.name} --help lists the groups."
        )
    where = f"{key}: " if key else ""
    return ConfigError(where + text.strip().splitlines()[0], _help_of(stage, key))


def _help_of(stage: Stage, key: str) -> str:
    for setting in walk(stage.config):
        if setting.key == key:
            return f"{key}: {setting.help}."
    return f"maquette {stage.name} --help lists the keys."
