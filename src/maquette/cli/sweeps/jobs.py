"""From the arguments behind `-m` to a list of jobs.

The values that keys were given make a product, as in any Hydra multirun (`size=100k,300k`, `hydra.sweeper.params` of a
`+sweep=` file). What depends on the budget or the recipe can't be a product: `sweep.budgets` puts sizes of its own on
each budget, `sweep.rates` multiplies the recipe's learning rate. Each member of the product becomes a list of such
jobs, and Hydra's launcher is given the list.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.files import digest
from maquette.artifacts.settings import parse_quantity
from maquette.cli.command_line.composition import compose, compose_raw
from maquette.cli.command_line.config import StageConfig, TrainStage
from maquette.cli.command_line.overrides import hydra_overrides, parse_overrides
from maquette.cli.command_line.recipe_numbers import curve_of, recipe_of, vocab_size
from maquette.cli.command_line.registry import Stage
from maquette.cli.sweeps.forecast import (
    PlannedJob,
    forecast,
    forget_shared,
    of_recipe,
    shared_tokens,
    training_tokens,
)
from maquette.cli.sweeps.sweep_job import SweepJob, grown_together, with_rate_pairs
from maquette.text.config import TokenizerConfig, effective_settings

if TYPE_CHECKING:
    from maquette.recipe.pretraining import Recipe


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a `-m` line means. `folder`, `<outputs>/sweeps/<name>`, is the same for the same line, so that it finds what
    it did before. `settings`: those of its first member; `remarks`: what a person should know before it starts."""

    stage: Stage
    name: str
    settings: Any
    jobs: tuple[SweepJob, ...]
    remarks: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return Path(self.settings.outputs) / "sweeps" / self.name


@dataclasses.dataclass(frozen=True)
class Line:
    """A `-m` line: its name, and the overrides and settings of every member of the product of its values."""

    stage: Stage
    name: str
    overrides: tuple[str, ...]
    members: tuple[tuple[tuple[str, ...], StageConfig], ...]
    compose: Callable[[Sequence[str]], StageConfig]

    @property
    def settings(self) -> StageConfig:
        return self.members[0][1]


def read_line(
    stage: Stage,
    overrides: Sequence[str],
    config_folder: Path | None = None,
    *,
    params: Mapping[str, str] | None = None,
    composed: Callable[[Sequence[str]], StageConfig] | None = None,
    config_loader: ConfigLoader | None = None,
) -> Line:
    """What a line says, composed and checked. `params`: those of Hydra's sweeper, by default of the `+sweep=` file;
    `composed`: how a member's overrides become settings.

    Raises `ConfigError` for the first mistake."""
    overrides = [f"+{text}" if text.startswith("sweep=") else text for text in overrides]
    combinations = product(stage, overrides, config_folder, params=params, config_loader=config_loader)
    composed = composed or functools.partial(_composed, stage, config_folder)
    members = tuple((tuple(arguments), composed(arguments)) for arguments in combinations)
    chosen_name = next((text.partition("=")[2] for text in overrides if text.startswith("+sweep=")), stage.name)
    identity = digest([_identity(settings) for _, settings in members])
    name = f"{chosen_name.rpartition('/')[2]}-{identity[:8]}"
    return Line(stage, name, tuple(overrides), members, composed)


def _composed(stage: Stage, config_folder: Path | None, arguments: Sequence[str]) -> StageConfig:
    return compose(stage, arguments, config_folder)


def product(
    stage: Stage,
    overrides: Sequence[str],
    config_folder: Path | None = None,
    *,
    params: Mapping[str, str] | None = None,
    config_loader: ConfigLoader | None = None,
) -> list[list[str]]:
    """The overrides of every combination of values, those of `hydra.sweeper.params` (a `+sweep=` file) included."""
    overrides = hydra_overrides(stage, overrides, config_folder)
    parsed = parse_overrides(overrides)
    if params is None:
        fixed = [text for text, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]
        params = compose_raw(stage, fixed, config_folder, hydra=True).hydra.sweeper.get("params") or {}
    given = {override.key_or_group for override in parsed}
    swept = [f"{key}={value}" for key, value in (params or {}).items() if key not in given]
    values: dict[str, list[str]] = {}
    parser = OverridesParser.create(config_loader=config_loader)  # which glob() asks for the options there are
    for text in (*hydra_overrides(stage, swept, config_folder), *overrides):
        override = parser.parse_override(text)
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [text]
        elif override.is_discrete_sweep():
            try:
                values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            except HydraException as error:
                raise ConfigError(f"can't read '{text}': {error}") from None
        else:
            raise ConfigError(
                f"'{text}' is a range without steps, of which this sweeper can't make jobs.",
                "hydra/sweeper=optuna searches one; or give values: choice(1,2,3), range(1,10,2), 1,2,3.",
            )
    combinations = [list(arguments) for arguments in itertools.product(*values.values())]
    if not combinations:
        raise ConfigError("the sweep has no jobs.", "Give a key several values: size=100k,300k.")
    return combinations


def trains_on_text(stage: Stage, settings: StageConfig) -> bool:
    """Whether there is more to say of a job than its settings."""
    return stage.name == "train" and isinstance(settings, TrainStage) and settings.objective.entry.reads_text


class Planner:
    """Asks the data what a job will be: made here where they are missing, once for all jobs that share them."""

    def __init__(self) -> None:
        forget_shared()

    def recipe(self, settings: TrainStage) -> "Recipe":
        from maquette.cli.planning.pretraining import resolve_recipe

        return resolve_recipe(settings, shared_tokens(settings))

    def vocab_size(self, settings: TrainStage) -> int:
        from maquette.text import Tokenizer

        return Tokenizer.load(shared_tokens(settings).tokenizer).vocab_size

    def domain_tokens(self, settings: TrainStage) -> dict[str, int]:
        return training_tokens(shared_tokens(settings).folder)

    def forecast(self, settings: TrainStage) -> PlannedJob:
        return forecast(settings, shared_tokens(settings))


class DryPlanner(Planner):
    """Says what the settings alone say, and reads nothing: `tokenizer.vocab_size` is the size of the vocabulary."""

    def recipe(self, settings: TrainStage) -> "Recipe":
        return recipe_of(settings, self.vocab_size(settings))

    def vocab_size(self, settings: TrainStage) -> int:
        return vocab_size(settings)

    def domain_tokens(self, settings: TrainStage) -> dict[str, int]:
        raise ConfigError(
            "sweep.mixtures are drawn from the domains of the corpus, which --show does not read.",
            "Run it once without --show, or give mixtures of your own: mixture=code,docs.",
        )

    def forecast(self, settings: TrainStage) -> PlannedJob:
        return of_recipe(settings, self.recipe(settings))


def plan(
    stage: Stage, overrides: Sequence[str], config_folder: Path | None = None, planner: Planner | None = None
) -> Sweep:
    """All jobs of a `-m` line, composed and checked, and those of a training stage with their forecasts.

    Raises `ConfigError` for the first that is wrong. Data that training needs is made here, once.
    """
    return plan_line(read_line(stage, overrides, config_folder), planner)


def plan_line(line: Line, planner: Planner | None = None) -> Sweep:
    """The same of a line that was read already."""
    planner = planner or Planner()
    unique: dict[str, SweepJob] = {}
    remarks: dict[str, None] = {}
    for arguments, chosen in line.members:
        for job in _expanded(line, planner, list(arguments), chosen, remarks):
            unique.setdefault(_what_counts(job.settings), job)
    planned = functools.partial(_planned, line, planner)
    jobs = with_rate_pairs(grown_together(list(unique.values()), planned), planned)
    if len(jobs) == 1 and not any(override.is_sweep_override() for override in parse_overrides(line.overrides)):
        remarks["this line means a single job: give a key several values, or choose a +sweep="] = None
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    jobs = [
        dataclasses.replace(
            job, arguments=tuple(w for w in job.overrides if w not in shared and not w.startswith("hydra"))
        )
        for job in jobs
    ]
    return Sweep(line.stage, line.name, line.settings, tuple(jobs), tuple(remarks))


def _expanded(
    line: Line, planner: Planner, arguments: list[str], settings: StageConfig, remarks: dict[str, None]
) -> Iterator[SweepJob]:
    """The jobs that one combination of values stands for: itself, unless the sweep's own settings say more."""
    if not isinstance(settings, TrainStage) or not trains_on_text(line.stage, settings):
        if isinstance(settings, TrainStage) and settings.sweep.is_given and not settings.objective.entry.reads_text:
            raise ConfigError("The settings of sweep are of pretraining.", "Give keys several values instead.")
        yield SweepJob(tuple(arguments), (), settings)
        return
    try:
        for more in _more_words(planner, arguments, settings, remarks):
            job = [*arguments, *more]
            composed = line.compose(job) if more else settings
            assert isinstance(composed, TrainStage)
            for rate in _rates(planner, composed):
                last = [*job, *rate]
                composed = line.compose(last) if rate else composed
                assert isinstance(composed, TrainStage)
                yield SweepJob(tuple(last), (), composed, planner.forecast(composed))
    except ConfigError:
        raise
    except MaquetteError as error:  # this combination's data can't be made; the others may do
        yield SweepJob(tuple(arguments), (), settings, error=str(error))


def _more_words(
    planner: Planner, arguments: list[str], settings: TrainStage, remarks: dict[str, None]
) -> Iterator[list[str]]:
    """`size=... compute=...` of every point of the IsoFLOP curves; nothing where there are none."""
    sweep = settings.sweep
    if sweep.mixtures:
        yield from _mixtures(planner, arguments, settings)
        return
    if not sweep.budgets:
        yield []
        return
    for key in ("size", "compute", "tokens", "checkpoint"):
        if any(argument.startswith(f"{key}=") for argument in arguments):
            raise ConfigError(
                f"{key} and sweep.budgets are both given: the sweep sets size and compute of each job.",
                f"Leave {key} out, or give size=... compute=... several values without +sweep=isoflop.",
            )
    for budget in sorted(parse_quantity(budget, "sweep.budgets") for budget in sweep.budgets):
        curve = curve_of(settings, budget, planner.vocab_size(settings), sweep.sizes_per_budget)
        if curve.warning:
            remarks[f"warning: {curve.warning}"] = None
        for size in curve.sizes:
            yield [f"size={size}", f"compute={_short(budget)}"]


def _mixtures(planner: Planner, arguments: list[str], settings: TrainStage) -> Iterator[list[str]]:
    """`mixture.weights=...` of every mixture to try."""
    from maquette.recipe.sweeps import mixture_design

    if settings.sweep.budgets or any(
        argument.lstrip("+").startswith(("mixture=", "mixture.")) for argument in arguments
    ):
        raise ConfigError(
            "sweep.mixtures sets the mixture of each job, at one size and budget.",
            "Leave mixture and sweep.budgets out.",
        )
    tokens = planner.domain_tokens(settings)
    for weights in mixture_design(tokens, settings.sweep.mixtures, budget=planner.recipe(settings).tokens):
        yield [f"++mixture.weights={{{','.join(f'{name}:{weight:g}' for name, weight in weights.items())}}}"]


def _planned(line: Line, planner: Planner, arguments: list[str]) -> SweepJob:
    """One more job of a training stage."""
    settings = line.compose(arguments)
    assert isinstance(settings, TrainStage)
    return SweepJob(tuple(arguments), (), settings, planner.forecast(settings))


def _short(budget: int) -> str:
    """`1e11`, `3.2e9`: as a person writes it."""
    mantissa, _, exponent = f"{budget:.6e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _rates(planner: Planner, settings: TrainStage) -> Iterator[list[str]]:
    """`optimizer.lr=...` of every multiple of the recipe's; nothing where none are asked for."""
    if not settings.sweep.rates:
        yield []
        return
    recipe = planner.recipe(settings)
    for multiple in settings.sweep.rates:
        yield [f"optimizer.lr={multiple * recipe.learning_rate:.6g}"]


_NOT_WHAT = ("outputs", "force", "tracking", "logger", "trainer", "callbacks", "threads")


def _identity(settings: StageConfig) -> dict[str, Any]:
    """What a job is, wherever it writes and however it is recorded."""
    return {key: value for key, value in dataclasses.asdict(settings).items() if key not in _NOT_WHAT}


def _what_counts(settings: StageConfig) -> str:
    """Digest of what a job is, without settings that have no part in it: of `tokenizer=byte,bpe` with several sizes of
    vocabulary bytes are one job."""
    tokenizer = getattr(settings, "tokenizer", None)
    effective = {"tokenizer": effective_settings(tokenizer)} if isinstance(tokenizer, TokenizerConfig) else {}
    return digest(_identity(settings) | effective)
