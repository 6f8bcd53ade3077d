"""What the runs of a family have in common, as words of `maquette train` that make another member of it.

Of the settings only those that differ from the defaults are written. What the recipe derives from the size (width,
learning rate, batch ...) is left to it, where it gives each run the numbers that the run had; otherwise a number that
all runs share is fixed.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import walk
from maquette.artifacts.targets import has_key, target_of, typed, with_values
from maquette.cli.command_line.composition import compose
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.pretraining import resolve_recipe
from maquette.cli.tokens import TokensResult, make_tokens
from maquette.optimization.config import OPTIMIZERS, SCHEDULERS, short_name
from maquette.recipe.run_spec import resolved_settings

DERIVED = (
    "model.hidden_size", "model.num_hidden_layers", "model.num_attention_heads", "model.num_key_value_heads",
    "model.head_dim",
    "model.intermediate_size", "data.batch_size_tokens", "optimizer.lr", "optimizer.weight_decay",
    "scheduler.warmup",
)  # fmt: skip
"""What the recipe sets where it is left open."""

_SCALE = ("size", "tokens", "compute", "tokens_per_parameter")
_ELSEWHERE = re.compile(
    r"(outputs|force|prediction|tracking\..*|(corpus|shards|data)\.workers|data\.micro_batch_size|recipe\.(source|provenance)"
    r"|trainer\.(accelerator|strategy|devices|num_nodes|enable_.*|log_every_n_steps|profiler|default_root_dir|plugins)"
    r"|(callbacks|logger)(\..*)?|threads|num_validations)$"
)
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")
_WORDS = ("null", "true", "false", "nan", "inf")


@dataclasses.dataclass(frozen=True)
class FamilySettings:
    """`overrides` of `maquette train` without size and tokens; the family's `data`; `notes`: what was not the same."""

    overrides: list[str]
    data: TokensResult
    notes: tuple[str, ...]


def is_elsewhere(key: str) -> bool:
    """Whether a setting only says where or by what a run is made, not what it is."""
    return _ELSEWHERE.fullmatch(key) is not None


def family_settings(folders: Sequence[Path], outputs: str) -> FamilySettings:
    """The settings that the runs in `folders` share; where they differ, the last one's hold, and that is noted.

    Makes the tokens again where they are missing. Raises `ConfigError` where a folder has no settings.
    """
    configs = [read_settings(folder) for folder in folders]
    leaves = [settings_of(config) for config in configs]
    last, options = leaves[-1], named_nodes(configs[-1])
    defaults = settings_of(compose(STAGES["train"], options))
    notes, chosen = [], {}
    for key, value in last.items():
        if key in (*_SCALE, *DERIVED) or is_elsewhere(key):
            continue
        others = [leaf.get(key) for leaf in leaves]
        if key != "seed" and any(other != value for other in others):
            distinct = sorted({str(other) for other in others})
            notes.append(f"The runs differ in {key} ({', '.join(distinct[:4])}): {value} is taken.")
        if key not in defaults or value != defaults[key]:
            chosen[key] = value
    data = make_tokens(dataclasses.replace(configs[-1], outputs=outputs))
    for key, open_for in _derived(configs, leaves, data).items():
        values = {str(leaf.get(key)) for leaf in leaves}
        if open_for or key not in last:
            continue
        if len(values) == 1:
            chosen[key] = last[key]
        else:
            notes.append(f"{key} follows no recipe that these runs recorded: it is left to the recipe.")
    overrides = [f"{'' if key in defaults else '++'}{key}={literal(value)}" for key, value in chosen.items()]
    return FamilySettings([*options, *overrides], data, tuple(notes))


def named_nodes(config: TrainStage) -> list[str]:
    """What the nodes of the optimiser and the scheduler are: files of ours, or another's `_target_`."""
    named = {name: getattr(config, name) for name in ("optimizer", "scheduler")}
    return [
        f"{name}._target_={target_of(node)}" if isinstance(node, dict) else f"{name}={short_name(node)}"
        for name, node in named.items()
        if type(node) is not type(getattr(TrainStage(), name))
    ]


def _derived(configs: list[TrainStage], leaves: list[dict[str, Any]], data: TokensResult) -> dict[str, bool]:
    """Of each derived setting whether the recipe gives it to every run as the run had it."""
    agrees = dict.fromkeys(DERIVED, True)
    for config, leaf in zip(configs, leaves, strict=True):
        open_config = _with(config, dict.fromkeys(DERIVED))
        try:
            recipe = resolve_recipe(open_config, data)
        except ConfigError:
            return dict.fromkeys(DERIVED, False)
        again = _flat(resolved_settings(dataclasses.asdict(open_config), recipe, "pretrain"))
        for key in DERIVED:
            agrees[key] &= again.get(key) == leaf.get(key) or leaf.get(key) is None
    return agrees


def _with(config: TrainStage, changes: Mapping[str, Any]) -> TrainStage:
    """A copy with other values under dotted keys."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    for section, values in sections.items():
        node = getattr(config, section)
        known = {name: value for name, value in values.items() if has_key(node, name)}
        config = dataclasses.replace(config, **{section: with_values(node, **known)})
    return config


def read_settings(folder: Path) -> TrainStage:
    """The settings of the run in `folder`. Raises `ConfigError` where they are missing or of another version."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = folder / "config.yaml"
    try:
        written: Any = OmegaConf.load(path)
        schema = TrainStage(
            optimizer=typed(_target(written, "optimizer"), OPTIMIZERS.values()),
            scheduler=typed(_target(written, "scheduler"), SCHEDULERS.values()),
        )
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), written))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing: the runs' settings are not on this machine.", "Predict where the runs were trained."
        ) from None
    except OmegaConfBaseException as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{path} has settings that this version does not know: {first}.") from None
    assert isinstance(config, TrainStage)
    return config


def _target(written: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Of a section of a run's settings what it builds."""
    return {"_target_": (written.get(section) or {}).get("_target_")}


@functools.cache
def _usual() -> dict[str, Any]:
    """The settings of `maquette train` with nothing given."""
    return settings_of(compose(STAGES["train"]))


def differences(config: Any) -> dict[str, Any]:
    """Of any settings those that `maquette train` has too, and has otherwise where nothing is given."""
    usual = _usual()
    return {key: value for key, value in settings_of(config).items() if value != usual.get(key, value)}


def words_of_run(config: Any, left: Sequence[str] = ()) -> list[str]:
    """The settings that decide what is trained, but for those `left` out, as words of `maquette train`."""
    changes = differences(config).items()
    return [f"{key}={literal(value)}" for key, value in changes if not is_elsewhere(key) and key not in left]


def words_of_machine(config: Any) -> list[str]:
    """On which devices a run is trained, and what is shown of it."""
    return [
        f"{key}={literal(value)}"
        for key, value in differences(config).items()
        if key.startswith(("trainer.", "threads", "callbacks.")) and is_elsewhere(key)
    ]


def words_of_place(config: Any) -> list[str]:
    """Where a run is written and recorded."""
    overrides = [
        f"{key}={literal(value)}"
        for key, value in differences(config).items()
        if key.startswith("logger.") and not key.endswith(".save_dir")
    ]
    return [f"outputs={literal(config.outputs)}", *([] if config.logger else ["logger=none"]), *overrides]


def settings_of(config: Any) -> dict[str, Any]:
    """Every setting of a stage by its dotted key, as plain values."""
    settings: dict[str, Any] = {}
    for setting in walk(config):
        value = _plain(setting.default)
        named = isinstance(value, dict) and "_target_" in value
        settings |= _flat(value, f"{setting.key}.") if named else {setting.key: value}
    return settings


def _plain(value: Any) -> Any:
    """Dataclasses in lists as tables."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def literal(value: Any) -> str:
    """A value as Hydra's command line reads it back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(literal(item) for item in value) + "]"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
