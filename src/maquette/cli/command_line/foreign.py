"""Nodes of a config whose `_target_` is not ours: a user's class, or a library's.

Ours are typed by dataclasses. Others are plain tables, whose keys are checked against the signature of what they name,
before any data is read.
"""

import copy
import dataclasses
import inspect
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import nearest
from maquette.artifacts.targets import import_target

_HYDRAS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")


def search_beside(config_folder: Path | None) -> None:
    """Lets modules beside a user's folder of YAML files be imported: their package is where their config is."""
    if config_folder is not None and (parent := str(config_folder.resolve().parent)) not in sys.path:
        sys.path.append(parent)


def without_schema(composed: DictConfig, given: Collection[str] = ()) -> DictConfig:
    """The config with those nodes as plain tables whose `_target_` was changed to one that their schema does not
    describe (`optimizer._target_=torch.optim.RMSprop`). Of the old class's arguments those stay that the new one takes
    too and that are not open (null, the recipe's), and those whose keys are among the `given`."""
    changed = list(_retargeted(composed))
    if not changed:
        return composed
    composed = copy.deepcopy(composed)
    for key in changed:
        plain: Any = OmegaConf.to_container(OmegaConf.select(composed, key))
        names = _arguments(plain["_target_"], key)
        remaining = {
            name: value for name, value in plain.items()
            if name in _HYDRAS or f"{key}.{name}" in given or (not _is_open(value) and (names is None or name in names))
        }  # fmt: skip
        OmegaConf.update(composed, key, OmegaConf.create(remaining), merge=False)
    return composed


def _is_open(value: Any) -> bool:
    """Whether a value is left to the class or the recipe."""
    return value is None or (isinstance(value, str) and value.startswith("${recipe:"))


def _retargeted(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, node):
        if OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
            continue
        if not isinstance(value := node[name], DictConfig):
            continue
        key = f"{prefix}{name}"
        if is_retargeted(value):
            yield key
        else:
            yield from _retargeted(value, f"{key}.")


def is_retargeted(node: DictConfig) -> bool:
    """Whether a node of ours was given a `_target_` that its schema does not describe."""
    kind = OmegaConf.get_type(node)
    if not dataclasses.is_dataclass(kind) or "_target_" not in node:
        return False
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    return node["_target_"] not in (defaults.get("_target_"), None)


def check_foreign(settings: Any, prefix: str = "") -> None:
    """Raises `ConfigError` for an argument that a foreign class does not take, or a class that can't be imported."""
    if dataclasses.is_dataclass(settings):
        node = getattr(settings, "foreign_node", lambda: None)()
        if node is not None:  # typed, but what it is made with is a user's
            check_foreign(node, prefix)
            return
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if isinstance(value, Mapping) and field.metadata.get("variants") and "_target_" not in value:
                raise ConfigError(
                    f"{prefix}{field.name} names no class.", "Give it `_target_: package.module.Class` in its file."
                )
            check_foreign(value, f"{prefix}{field.name}.")
    elif isinstance(settings, Mapping):
        if isinstance(target := settings.get("_target_"), str):
            _check_arguments(target, settings, prefix)
        for name, value in settings.items():
            check_foreign(value, f"{prefix}{name}.")
    elif isinstance(settings, list):
        for number, value in enumerate(settings):
            check_foreign(value, f"{prefix.rstrip('.')}[{number}].")


def arguments_at(composed: DictConfig, key: str) -> list[str]:
    """The keys beside `key` that the class of its node takes; none where that is ours, or takes anything."""
    section = key.rpartition(".")[0]
    node = OmegaConf.select(composed, section) if section else None
    if not isinstance(node, DictConfig) or not isinstance(target := node.get("_target_"), str):
        return []
    return [f"{section}.{name}" for name in _arguments(target, section) or ()]


def _arguments(target: str, key: str) -> list[str] | None:
    """The names of the arguments that a class or function takes; None where it takes any, or does not say."""
    callee = import_target(target, key=f"{key}._target_")
    try:
        parameters = inspect.signature(callee).parameters.values()
    except (TypeError, ValueError):  # written in C, and says nothing of itself
        return None
    settings = getattr(callee, "config_class", None)  # of an objective, which hands on the rest to it
    own = [field.name for field in dataclasses.fields(settings)] if dataclasses.is_dataclass(settings) else None
    if own is None and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return (own or []) + [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def _check_arguments(target: str, node: Mapping[Any, Any], prefix: str) -> None:
    names = _arguments(target, prefix.rstrip("."))
    if names is None:
        return
    for name in node:
        if name not in names and name not in _HYDRAS:
            close = nearest(str(name), names)
            raise ConfigError(
                f"unknown key '{prefix}{name}': {target} takes no such argument.",
                f"Did you mean '{prefix}{close}'?" if close else f"It takes {', '.join(names)}.",
            )
