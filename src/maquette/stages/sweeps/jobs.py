"""From the words behind `-m` to a list of jobs.

The values that keys were given make a product, as in any Hydra multirun (`size=100k,300k`, `hydra.sweeper.params` of a
`+sweep=` file). What depends on the budget or the recipe can't be a product: `sweep.budgets` puts sizes of its own on
each budget, `sweep.rates` multiplies the recipe's learning rate. Each member of the product becomes a list of such
jobs, and Hydra's launcher is given the list.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.files import digest
from maquette.artifacts.settings import parse_quantity
from maquette.stages import Stage
from maquette.stages.composition import compose, compose_raw
from maquette.stages.config import StageConfig, TrainStage
from maquette.stages.overrides import hydra_overrides, parse_overrides

if TYPE_CHECKING:
    from maquette.stages.sweeps.forecast import Forecast


@dataclasses.dataclass(frozen=True)
class SweepJob:
    """One job: all of its overrides, the `words` that set it apart, its settings, and the data it reads (for training).

    `forecast` is what it will be, None where nobody can say; `error` why it can't be at all.
    """

    overrides: tuple[str, ...]
    words: tuple[str, ...]
    settings: Any
    data: Any = None
    forecast: "Forecast | None" = None
    error: MaquetteError | None = None

    @property
    def title(self) -> str:
        return " ".join(self.words)

    @property
    def is_done(self) -> bool:
        return self.forecast is not None and self.forecast.finished


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a `-m` line means. `folder`, `<outputs>/sweeps/<name>`, is the same for the same line, so that it finds what
    it did before. `remarks`: what a person should know before it starts."""

    stage: Stage
    name: str
    jobs: tuple[SweepJob, ...]
    remarks: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return Path(self.jobs[0].settings.outputs) / "sweeps" / self.name


def product(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> list[list[str]]:
    """The overrides of every combination of values, those of `hydra.sweeper.params` (a `+sweep=` file) included."""
    overrides = hydra_overrides(stage, overrides, config_folder)
    parsed = parse_overrides(overrides)
    fixed = [text for text, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]
    composed = compose_raw(stage, fixed, config_folder, hydra=True)
    params = composed.hydra.sweeper.get("params") or {}
    given = {override.key_or_group for override in parsed}
    swept = [f"{key}={value}" for key, value in params.items() if key not in given]
    batches = BasicSweeper.split_arguments(parse_overrides([*swept, *overrides]), None)
    return [list(job) for batch in batches for job in batch]


def plan(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> Sweep:
    """All jobs of a `-m` line, composed and checked, and those of a training stage with their forecasts.

    Raises `ConfigError` for the first that is wrong. Data that training needs is made here, once.
    """
    overrides = [f"+{text}" if text.startswith("sweep=") else text for text in overrides]
    combinations = product(stage, overrides, config_folder)
    if not combinations:
        raise ConfigError("the sweep has no jobs.", "Give a key several values: size=100k,300k.")
    settings = [compose(stage, words, config_folder) for words in combinations]  # mistakes come before any work
    found: dict[tuple[str, ...], SweepJob] = {}
    remarks: dict[str, None] = {}
    for words, chosen in zip(combinations, settings, strict=True):
        for job in _expanded(stage, words, chosen, config_folder, remarks):
            found.setdefault(job.overrides, job)
    jobs = grown_together(list(found.values()), lambda words: _composed(stage, words, config_folder))
    if len(jobs) == 1 and not any(override.is_sweep_override() for override in parse_overrides(overrides)):
        remarks["this line means a single job: give a key several values, or choose a +sweep="] = None
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    jobs = [
        dataclasses.replace(job, words=tuple(w for w in job.overrides if w not in shared and not w.startswith("hydra")))
        for job in jobs
    ]
    chosen_name = next((text.partition("=")[2] for text in overrides if text.startswith("+sweep=")), stage.name)
    identity = digest([_identity(job.settings) for job in jobs])
    return Sweep(stage, f"{chosen_name}-{identity[:8]}", tuple(jobs), tuple(remarks))


def _expanded(
    stage: Stage, words: list[str], settings: StageConfig, config_folder: Path | None, remarks: dict[str, None]
) -> Iterator[SweepJob]:
    """The jobs that one combination of values stands for: itself, unless the sweep's own settings say more."""
    prepare, forecast = stage.part("prepare"), stage.part("forecast")
    trains = prepare is not None and forecast is not None
    if not trains or not isinstance(settings, TrainStage) or settings.objective.kind != "pretrain":
        if isinstance(settings, TrainStage) and trains and settings.sweep.is_given:
            raise ConfigError("The settings of sweep are of pretraining.", "Give keys several values instead.")
        yield SweepJob(tuple(words), (), settings)
        return
    try:
        data = prepare(settings)
        for more in _more_words(words, settings, data, remarks):
            job = [*words, *more]
            composed = compose(stage, job, config_folder) if more else settings
            assert isinstance(composed, TrainStage)
            for rate in _rates(composed, data):
                last = [*job, *rate]
                composed = compose(stage, last, config_folder) if rate else composed
                yield SweepJob(tuple(last), (), composed, data, forecast(composed, data))
    except ConfigError:
        raise
    except MaquetteError as error:  # this combination's data can't be made; the others may do
        yield SweepJob(tuple(words), (), settings, error=error)


def _more_words(words: list[str], settings: TrainStage, data: Any, remarks: dict[str, None]) -> Iterator[list[str]]:
    """`size=... compute=...` of every point of the IsoFLOP curves; nothing where there are none."""
    sweep = settings.sweep
    if sweep.mixtures:
        yield from _mixtures(words, settings, data)
        return
    if not sweep.budgets:
        yield []
        return
    from maquette.recipe.sweeps import isoflop_curve
    from maquette.text import Tokenizer

    for key in ("size", "compute", "tokens", "checkpoint"):
        if any(word.startswith(f"{key}=") for word in words):
            raise ConfigError(
                f"{key} and sweep.budgets are both given: the sweep sets size and compute of each job.",
                f"Leave {key} out, or give size=... compute=... several values without +sweep=isoflop.",
            )
    for budget in sorted(parse_quantity(budget, "sweep.budgets") for budget in sweep.budgets):
        curve = isoflop_curve(
            budget,
            count=sweep.sizes_per_budget,
            ratio=sweep.ratio,
            tokens_per_parameter=settings.tokens_per_parameter,
            model=settings.model,
            vocab_size=Tokenizer.load(data.tokenizer).vocab_size,
            context=settings.data.sequence_length,
            phases=settings.mixture.phases,
        )
        if curve.warning:
            remarks[f"warning: {curve.warning}"] = None
        for size in curve.sizes:
            yield [f"size={size}", f"compute={_short(budget)}"]


def _mixtures(words: list[str], settings: TrainStage, data: Any) -> Iterator[list[str]]:
    """`mixture.weights=...` of every mixture to try."""
    from maquette.data import TokenShards
    from maquette.recipe.mixtures import mixture_design
    from maquette.stages.planning import resolve_recipe

    if settings.sweep.budgets or any(word.startswith(("mixture=", "mixture.")) for word in words):
        raise ConfigError(
            "sweep.mixtures sets the mixture of each job, at one size and budget.",
            "Leave mixture and sweep.budgets out.",
        )
    tokens = TokenShards(data.folder, verify=False).tokens("train")
    budget = resolve_recipe(settings, data).tokens
    for weights in mixture_design(tokens, settings.sweep.mixtures, budget=budget):
        yield [f"mixture.weights={{{','.join(f'{name}:{weight:g}' for name, weight in weights.items())}}}"]


_HORIZON = ("compute=", "tokens=", "tokens_per_parameter=")


def grown_together(jobs: list[SweepJob], composed: Callable[[list[str]], SweepJob]) -> list[SweepJob]:
    """With `sweep.branches`: jobs that differ in nothing but their horizon become one, the longest, with branches.

    With `sweep.bias` the horizons of the model that has most of them are trained with schedules of their own as well.
    """
    groups: dict[tuple[str, ...], list[SweepJob]] = {}
    for job in jobs:
        branched = getattr(getattr(job.settings, "sweep", None), "branches", False) and job.forecast is not None
        rest = tuple(word for word in job.overrides if not word.startswith(_HORIZON))
        groups.setdefault(rest if branched else job.overrides, []).append(job)
    trees = [group for group in groups.values() if len(group) > 1]
    if not trees:
        return jobs
    result = []
    for group in groups.values():
        group.sort(key=_tokens)
        words = [*group[-1].overrides]
        if len(group) > 1:
            words.append(f"scheduler.branches=[{','.join(str(_tokens(job)) for job in group[:-1])}]")
        result.append(composed(words) if len(group) > 1 else group[0])
    if trees[0][0].settings.sweep.bias:
        measured = min(trees, key=lambda group: (-len(group), sum(map(_compute, group))))
        for job in measured:
            own = [word for word in job.overrides if not word.startswith("scheduler")]
            result.append(composed([*own, "scheduler=linear"]))
    return result


def _tokens(job: SweepJob) -> int:
    return job.forecast.tokens if job.forecast is not None else 0


def _compute(job: SweepJob) -> int:
    return job.forecast.compute if job.forecast is not None else 0


def _composed(stage: Stage, words: list[str], config_folder: Path | None) -> SweepJob:
    """One more job of a training stage."""
    settings = compose(stage, words, config_folder)
    data = stage.part("prepare")(settings)
    return SweepJob(tuple(words), (), settings, data, stage.part("forecast")(settings, data))


def _short(budget: int) -> str:
    """`1e11`, `3.2e9`: as a person writes it."""
    mantissa, _, exponent = f"{budget:.6e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _rates(settings: TrainStage, data: Any) -> Iterator[list[str]]:
    """`optimizer.lr=...` of every multiple of the recipe's; nothing where none are asked for."""
    if not settings.sweep.rates:
        yield []
        return
    from maquette.stages.planning import resolve_recipe

    recipe = resolve_recipe(settings, data)
    for multiple in settings.sweep.rates:
        yield [f"optimizer.lr={multiple * recipe.learning_rate:.6g}"]


def _identity(settings: StageConfig) -> dict[str, Any]:
    """What a job is, wherever it writes and however it is recorded."""
    return {
        key: value
        for key, value in dataclasses.asdict(settings).items()
        if key not in ("outputs", "force", "tracking", "trainer", "sweep")
    }
