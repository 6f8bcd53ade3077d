"""What the runs of a family have in common: the settings that make another member of it.

What the recipe derives from the size (width, learning rate, batch ...) is left to it, where it gives each run the
numbers that the run had; otherwise a number that all runs share is fixed.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import relocated
from maquette.artifacts.run_file import FILE
from maquette.artifacts.settings import flatten
from maquette.artifacts.targets import has_key, with_values
from maquette.cli.command_line.config import TrainStage
from maquette.cli.planning.predicted import made_here, settings_of_run
from maquette.cli.planning.pretraining import resolve_recipe, spec_of
from maquette.cli.tokens import make_tokens
from maquette.data.token_artifacts import TokensResult
from maquette.recipe.run_spec import RunSpec, resolved_settings
from maquette.scaling.predictions.prediction import is_local
from maquette.training.record import read_record

DERIVED = (
    "model.hidden_size", "model.num_hidden_layers", "model.num_attention_heads", "model.num_key_value_heads",
    "model.head_dim", "model.intermediate_size", "data.batch_size_tokens", "optimizer.lr", "optimizer.weight_decay",
    "scheduler.warmup",
)  # fmt: skip
"""What the recipe sets where it is left open."""

_ROUNDS = 5

SCALE = ("size", "tokens", "compute", "tokens_per_parameter")


@dataclasses.dataclass(frozen=True)
class FamilySettings:
    """`config`: the last run's settings, with open what the recipe derives; size and tokens are to be replaced. `data`:
    the family's; `notes`: what was not the same in all runs."""

    config: TrainStage
    data: TokensResult
    notes: tuple[str, ...]


def family_settings(folders: Sequence[Path], outputs: str) -> FamilySettings:
    """The settings that the runs in `folders` share; where they differ, the last one's hold, and that is noted.

    Makes the tokens again where they are missing. Raises `ConfigError` where a run is not on this machine.
    """
    configs = [settings_of_folder(folder, outputs) for folder in folders]
    leaves = [flatten(dataclasses.asdict(config)) for config in configs]
    last, notes = leaves[-1], []
    for key, value in last.items():
        if key in (*SCALE, *DERIVED, "seed") or is_local(key):
            continue
        distinct = sorted({str(leaf.get(key)) for leaf in leaves})
        if len(distinct) > 1:
            notes.append(f"The runs differ in {key} ({', '.join(distinct[:4])}): {value} is taken.")
    data = make_tokens(dataclasses.replace(configs[-1], outputs=outputs))
    left = []
    for key, follows_recipe in _derived(configs, leaves, data).items():
        if not follows_recipe and key in last and len({str(leaf.get(key)) for leaf in leaves}) == 1:
            continue
        left.append(key)
        if not follows_recipe and key in last:
            notes.append(f"{key} follows no recipe that these runs recorded: it is left to the recipe.")
    return FamilySettings(_opened(configs[-1], left), data, tuple(notes))


def plan_member(
    family: FamilySettings, here: TrainStage, *, size: str, tokens: str | None, compute: str | None, seed: int | None
) -> RunSpec:
    """A further run of a family, made where `here` says. Raises `StageError` where it was begun already."""
    config = made_here(dataclasses.replace(family.config, size=size, tokens=tokens, compute=compute), here)
    if seed is not None:
        config = dataclasses.replace(config, seed=seed)
    for _ in range(_ROUNDS):  # batch and steps follow the tokens: until both stay
        recipe = resolve_recipe(config, family.data)
        if config.tokens == str(recipe.tokens):
            break
        config = dataclasses.replace(config, tokens=str(recipe.tokens), compute=None)
    spec = spec_of(config, recipe, family.data)
    result = read_record(spec.folder(here.outputs))
    if result is not None and result.step > 0:
        raise StageError(
            f"The run {spec.name} was begun at {result.started}: it is too late to predict it.",
            "Predict another one, for instance with seed=1.",
        )
    return spec


def settings_of_folder(folder: Path, outputs: str) -> TrainStage:
    """The settings of the run that was in `folder`, a folder in `outputs`. Raises `ConfigError` where it is gone."""
    folder = relocated(folder, outputs)
    record = read_record(folder)
    if record is None:
        raise ConfigError(
            f"The run {folder} is not on this machine, nor are its settings.", "Predict where the runs were trained."
        )
    return settings_of_run(record.spec, folder / FILE)


def _derived(configs: list[TrainStage], leaves: list[dict[str, Any]], data: TokensResult) -> dict[str, bool]:
    """Of each derived setting whether the recipe gives it to every run as the run had it."""
    agrees = dict.fromkeys(DERIVED, True)
    for config, leaf in zip(configs, leaves, strict=True):
        open_config = _opened(config, DERIVED)
        try:
            recipe = resolve_recipe(open_config, data)
        except ConfigError:
            return dict.fromkeys(DERIVED, False)
        again = flatten(resolved_settings(dataclasses.asdict(open_config), recipe, config.objective.entry.name))
        for key in DERIVED:
            agrees[key] &= again.get(key) == leaf.get(key) or leaf.get(key) is None
    return agrees


def _opened(config: TrainStage, keys: Sequence[str]) -> TrainStage:
    """A copy with what is under dotted keys left to the recipe."""
    for key in keys:
        section, _, name = key.partition(".")
        node = getattr(config, section)
        if has_key(node, name):
            config = dataclasses.replace(config, **{section: with_values(node, **{name: None})})
    return config
