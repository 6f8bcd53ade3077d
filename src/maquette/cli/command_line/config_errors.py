"""What Hydra and OmegaConf say of a wrong config, with what helps beside it: the nearest key, the allowed options, a
renamed key's new name.
"""

import dataclasses
import re
from collections.abc import Sequence

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.renamed import renamed_key, renamed_option, renaming_note
from maquette.artifacts.settings import nearest, walk
from maquette.cli.command_line.help import groups
from maquette.cli.command_line.registry import STAGES, Stage

COMPOSING = (HydraException, OmegaConfBaseException, YAMLError)
"""What Hydra and the libraries below it raise over a config."""

_NAMES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


def wrong_key(error: BaseException) -> str | None:
    """The key that Hydra has no place for."""
    result = re.search(r"Could not (?:override|append|delete)(?: config value at| from config)? '([^']+)'", str(error))
    return result[1] if result else None


def explained(stage: Stage, error: BaseException, more: Sequence[str] = ()) -> ConfigError:
    """The error for a person: Hydra's or OmegaConf's own first line, and what to do. `more`: keys that the stage has
    here beside its own."""
    if isinstance(error, InstantiationException):
        return ConfigError(str(error).strip())
    chain = [error]
    # Under a debugger OmegaConf's errors, which name the key, have a cause, which does not.
    while not isinstance(chain[-1], OmegaConfBaseException) and (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for one in chain:
        if isinstance(one, MissingConfigException) and one.missing_cfg_file:
            file = str(one.missing_cfg_file)  # of a list of options Hydra does not say which there are
            options = one.options or groups(stage).get(file.rpartition("/")[0])
            if options:
                return _no_option(file, options)
    outer, inner = str(error).strip(), str(chain[-1]).strip()
    key = str(getattr(chain[-1], "full_key", None) or "")
    if (wrong := wrong_key(error)) is not None:
        if renamed_key(wrong):
            return unknown_key(stage, wrong)
        # Hydra's own advice stays where it knows the way: `experiment=mine` belongs after a +
        if "default list" in outer and (advice := re.search(r"To append .*use (\S+)", outer)):
            return ConfigError(outer.splitlines()[0], f"To add it, write {advice[1]}.")
        if wrong in more:
            return ConfigError(f"'{wrong}' is not in the config.", f"To add this argument, write +{wrong}=...")
        return _not_of_variant(stage, wrong) or unknown_key(stage, wrong, more)
    if match := re.search(r"Key '([^']+)' (?:is )?not in '", inner):
        full = re.search(r"full_key: (\S+)", inner)
        key = key or (full[1] if full else match[1])
        if place := re.match(r"In '((?:experiment|sweep)/[^']+)'", outer):
            return _of_another_stage(stage, place[1], key)
        return _not_of_variant(stage, key) or unknown_key(stage, key)
    if match := re.search(r"Value '(.*?)'.*could not be converted to (\w+)", inner, re.DOTALL):
        return ConfigError(f"{key}={match[1]} is not {_NAMES.get(match[2], match[2])}.", _help_of(stage, key))
    if (match := re.search(r"Error merging override (\S+?)=(\S+)", outer)) and "is not a ListConfig" in inner:
        hint = f"Write {match[1]}=[{match[2]}]. {_help_of(stage, match[1])}"
        return ConfigError(f"{match[1]}={match[2]} is not a list.", hint)
    if "Optional" in inner or "None" in inner:
        return ConfigError(f"{key} can't be null.", _help_of(stage, key))
    where = f"{key}: " if key and key not in inner else ""
    lines = [line for line in (outer or inner).splitlines() if line.strip()] or [type(error).__name__]
    if chain[-1] is not error and inner and inner.splitlines()[0] not in lines[0]:
        lines.append(inner.splitlines()[0])
    return ConfigError(where + "\n  ".join(lines[:3]), _help_of(stage, key))


def _of_another_stage(stage: Stage, place: str, key: str) -> ConfigError:
    """The error for an experiment or a sweep that sets what the stage does not have."""
    group, _, option = place.partition("/")
    others = [other.name for other in STAGES.values() if option in groups(other).get(group, ())]
    hint = f"It is for {' and '.join(f'maquette {name}' for name in others)}." if others else _nearby(stage, key)
    return ConfigError(f"{group}={option} sets '{key}', an unknown key of maquette {stage.name}.", hint)


def unknown_key(stage: Stage, key: str, more: Sequence[str] = ()) -> ConfigError:
    """The error for a key that a stage does not have, with its new name or the nearest one that there is."""
    new = renamed_key(key)
    if new is not None and new.partition(".")[0] in {field.name for field in dataclasses.fields(stage.config)}:
        return ConfigError(f"unknown key '{key}'.", f"It is now '{new}'{renaming_note(key)}.")
    hint = _nearby(stage, key, more) or f"maquette {stage.name} --help-all lists the keys."
    return ConfigError(f"unknown key '{key}'.", f"{hint} Before a text with =, put --." if stage.positional else hint)


def _nearby(stage: Stage, key: str, more: Sequence[str] = ()) -> str:
    sections = [field.name for field in dataclasses.fields(stage.config)]
    close = nearest(key, [*(setting.key for setting in walk(stage.config)), *groups(stage), *sections, *more])
    return f"Did you mean '{close}'?" if close and close != key else ""


def _no_option(file: str, options: Sequence[str]) -> ConfigError:
    group, _, option = file.rpartition("/")
    options = [one for one in sorted(options) if not one.endswith(("_schema", "_settings"))]
    close = nearest(option, options)
    hint = f"Did you mean '{close}'? " if close else ""
    if new := renamed_option(group, option):
        hint = f"It is now {new}. "
    return ConfigError(f"{group}={option} is not known.", f"{hint}Allowed: {', '.join(options)}.")


def _not_of_variant(stage: Stage, key: str) -> ConfigError | None:
    """The error for a setting that other variants of its section have."""
    for setting in walk(stage.config):
        if setting.key == key and setting.variants:
            section = key.partition(".")[0]
            chosen = " or ".join(f"{section}={name}" for name in setting.variants)
            return ConfigError(f"{key} has no effect here: it is a setting of {chosen}.", "Leave it out.")
    return None


def _help_of(stage: Stage, key: str) -> str:
    for setting in walk(stage.config):
        if setting.key == key:
            return f"{key}: {setting.help}."
    return f"maquette {stage.name} --help-all lists the keys."
