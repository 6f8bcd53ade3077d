"""What the runs of a family have in common: the settings that make another member of it, and the words of a command
line that mean the same.

What the recipe derives from the size (width, learning rate, batch ...) is left to it, where it gives each run the
numbers that the run had; otherwise a number that all runs share is fixed.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.files import relocated
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import FILE
from maquette.artifacts.settings import flatten, parse_quantity
from maquette.artifacts.targets import has_key, with_values
from maquette.cli.command_line.composition import compose, words_of
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.registry import STAGES
from maquette.cli.planning.predicted import made_here, settings_of_run
from maquette.cli.planning.pretraining import resolve_recipe, spec_of
from maquette.cli.tokens import make_tokens
from maquette.data.token_artifacts import TokensResult
from maquette.recipe.run_spec import RunSpec, resolved_settings
from maquette.recipe.shape import SizeError
from maquette.scaling.predictions.prediction import check_data, is_local
from maquette.training.record import read_record

if TYPE_CHECKING:
    from maquette.scaling.fits.sweep_fit import SweepFit

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
    fit: "SweepFit", outputs: str, *, size: str | None, tokens: str | None, compute: str | None, seed: int | None
) -> RunSpec:
    """A further member of the family that the fit rests on, of the best size for `compute` where none is given.

    Raises `StageError` where it was begun already, or its data are not those of the family."""
    assert fit.table.folders is not None
    family = family_settings(fit.table.folders, outputs)
    for note in family.notes:
        say(note)
    asked = size
    if size is None:
        if fit.table.convention != "exact":
            raise ConfigError(
                "A fit in Kaplan's convention knows the best core, not the best size.",
                "Give size= as well as compute=.",
            )
        size = str(round(fit.best(float(parse_quantity(str(compute), "compute"))).params))
    here = compose(STAGES["train"], [f"outputs={outputs}"])
    assert isinstance(here, TrainStage)
    config = made_here(dataclasses.replace(family.config, size=size, tokens=tokens, compute=compute), here)
    if seed is not None:
        config = dataclasses.replace(config, seed=seed)
    for _ in range(_ROUNDS):  # batch and steps follow the tokens: until both stay
        try:
            recipe = resolve_recipe(config, family.data)
        except SizeError as error:
            if asked is not None:
                raise
            raise _out_of_reach(str(compute), str(size), error) from error
        if config.tokens == str(recipe.tokens):
            break
        config = dataclasses.replace(config, tokens=str(recipe.tokens), compute=None)
    spec = spec_of(config, recipe, family.data)
    result = read_record(spec.folder(outputs))
    if result is not None and result.step > 0:
        raise StageError(
            f"The run {spec.name} was begun at {result.started}: it is too late to predict it.",
            "Predict another one, for instance with seed=1.",
        )
    check_data(spec, fit.table)
    return spec


def _out_of_reach(compute: str, best: str, error: SizeError) -> ConfigError:
    """Of a budget whose best size is none of the family's: what was asked for is the budget."""
    return ConfigError(
        f"compute={compute}: by this law {int(best):,} parameters are the best for it, which can't be reached "
        f"{error.reach}",
        f"Ask for {'more' if error.too_small else 'less'} compute, or give a size in between as well: "
        f"size=... compute={compute}",
    )


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


def family_words(folders: Sequence[Path] | None, outputs: str) -> list[str]:
    """What to type for a further member of the family in `folders` beside its size and tokens; of runs that are not
    ours (None) only where it is to be."""
    where = [] if outputs == "outputs" else [f"outputs={outputs}"]
    if folders is None:
        return where
    family = family_settings(folders, outputs).config
    return [*words_of(family, lambda key: key not in SCALE and not is_local(key)), *where]


def sweep_words(config: Any) -> list[str]:
    """The small models below a larger one with the settings `config`, as its `sweep` says: where it is made and
    recorded, and all that is not its size, or who watches it."""

    def counts(key: str) -> bool:
        shared = key.partition(".")[0] in ("outputs", "logger", "sweep") and not key.endswith(".save_dir")
        return key not in SCALE[:3] and (shared or not is_local(key))

    return ["+sweep=isoflop", *words_of(config, counts)]
