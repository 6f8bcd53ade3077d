"""From overrides to checked settings: Hydra composes `conf/`, the dataclasses of `cli/command_line/config.py` judge it.

`compose` is for Python; the command line's applications (application.py) are given what Hydra composed and call
`to_settings`, so both mean the same run by the same words. `words_of` is the way back: settings as words of `maquette
train` that mean the same, for lines to type, and for the sweep of the demo.
"""

import contextlib
import dataclasses
import functools
import logging
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.settings import check, flatten
from maquette.artifacts.targets import target_of
from maquette.cli.command_line.config import StageConfig, TrainStage
from maquette.cli.command_line.config_errors import COMPOSING, explained, unknown_key, wrong_key
from maquette.cli.command_line.foreign import arguments_at, check_foreign, is_retargeted, search_beside, without_schema
from maquette.cli.command_line.gpus import register_default_precision
from maquette.cli.command_line.help import config_folders
from maquette.cli.command_line.overrides import free_form, hydra_overrides, literal, parse_overrides
from maquette.cli.command_line.recipe_numbers import left_open, register_resolver
from maquette.cli.command_line.registry import STAGES, Stage
from maquette.optimization.config import short_name


@functools.cache
def register_schema(name: str) -> None:
    """Makes a stage's dataclass known to Hydra as `schema/<stage>`, and the classes that its sections choose among as
    `<section>/<variant>_schema`; once in a process."""
    register_resolver()
    register_default_precision()
    store, config = ConfigStore.instance(), STAGES[name].config
    types = typing.get_type_hints(config)
    fields = {field.name: field.metadata for field in dataclasses.fields(config)}
    # OmegaConf lets a section become a kind of what it is, so it begins as what all variants have in common.
    common: dict[str, Any] = {
        name: types[name]() for name, metadata in fields.items() if metadata.get("variants") and types[name] is not Any
    }
    common |= {name: None for name in fields if types[name] is Any and fields[name].get("variants")}
    schema = config(**common)
    store.store(group="schema", name=name, node=schema, package="_global_", provider="maquette")
    for section, metadata in fields.items():
        for kind in ("variants", "items"):
            for variant, settings in (metadata.get(kind) or {}).items():
                for ending in ("schema", "settings"):
                    store.store(group=section, name=f"{variant}_{ending}", node=settings, provider="maquette")


def compose(stage: Stage, overrides: Sequence[str] = (), config_folder: Path | None = None) -> StageConfig:
    """The checked settings of one run. Raises `ConfigError` that names the key and what is allowed."""
    overrides = hydra_overrides(stage, overrides, config_folder)
    return to_settings(stage, compose_raw(stage, overrides, config_folder), overrides)


def compose_raw(
    stage: Stage, overrides: Sequence[str], config_folder: Path | None = None, *, hydra: bool = False
) -> DictConfig:
    """What Hydra composes, unchecked; with `hydra` its own node as well."""
    register_schema(stage.name)
    extra = [f"hydra.searchpath=[file://{config_folder}]"] if config_folder else []
    try:
        with (
            hydra_apart(),
            initialize_config_dir(version_base="1.3", config_dir=str(config_folders()[0]), job_name=stage.name),
        ):
            return hydra_compose(stage.name, [*extra, *overrides], return_hydra_config=hydra)
    except COMPOSING as error:
        raise explain(stage, error, overrides, config_folder) from error


def explain(
    stage: Stage, error: BaseException, overrides: Sequence[str], config_folder: Path | None = None
) -> ConfigError:
    """The error for a person (config_errors.py), where a key is wrong with the arguments that a user's class takes."""
    key = wrong_key(error)
    others = [text for text in overrides if text.partition("=")[0] != key]
    if key is None or len(others) == len(overrides):
        return explained(stage, error)
    search_beside(config_folder)
    try:
        more = arguments_at(compose_raw(stage, others, config_folder), key)
    except MaquetteError:  # something else is wrong, too
        more = []
    return explained(stage, error, more)


def to_settings(
    stage: Stage, composed: DictConfig, overrides: Sequence[str] = (), *, classes: bool = True
) -> StageConfig:
    """The stage's dataclass, filled and checked. `overrides`: those that `composed` was made with; `classes`: whether
    arguments of classes that are not ours are checked too, which imports them (Lightning's take seconds).

    Raises `ConfigError` for a key that is not known, a value that is not allowed, a class that takes no such argument.
    """
    tables = free_form(stage)
    for override in parse_overrides([text for text in overrides if text.lstrip("+").startswith(tables or ("\0",))]):
        # A table given on the command line is the whole table; Hydra merges it into the one of the group's file.
        if override.key_or_group in tables and isinstance(override.value(), dict):
            OmegaConf.update(composed, override.key_or_group, override.value(), merge=False)
    _check_keys(stage, composed)
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    try:
        with left_open():
            settings = OmegaConf.to_object(without_schema(composed, given))
    except OmegaConfBaseException as error:
        raise explained(stage, error) from error
    if not isinstance(settings, stage.config):
        raise ConfigError(
            f"the settings of {stage.name} are not of its kind.", "Is a defaults list missing in your YAML file?"
        )
    check(settings)
    if classes:
        check_foreign(settings)
    if isinstance(settings, TrainStage) and settings.prediction is not None:
        from maquette.cli.planning.predicted import predicted

        usual = compose(stage, [f"trainer.accelerator={settings.trainer.accelerator}"])  # which precision follows
        assert isinstance(usual, TrainStage)
        return predicted(settings, usual, given)
    return settings


def _check_keys(stage: Stage, node: DictConfig, prefix: str = "") -> None:
    """Raises `ConfigError` for a key that `+key=` brought into a section that has no such setting."""
    kind = OmegaConf.get_type(node)
    known = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else None
    foreign = known is None or is_retargeted(node)
    for key in map(str, node):
        name = f"{prefix}{key}"
        if known is not None and key not in known and not (foreign and prefix):
            raise unknown_key(stage, name)
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        if isinstance(value := node[key], DictConfig):
            _check_keys(stage, value, f"{name}.")


@contextlib.contextmanager
def hydra_apart() -> Iterator[None]:
    """Hydra has one configuration and one logging for the process; within this block it may have others."""
    hydra, config, handlers = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, logging.root.handlers[:]
    level = logging.root.level
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, config
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


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
