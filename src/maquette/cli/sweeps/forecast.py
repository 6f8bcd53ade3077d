"""What a training job will be, before it runs: its numbers, its folder, and whether it is done already.

A forecast is plain numbers, so that it can be kept: a finished sweep is recognised without torch.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import digest
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.run_file import FINISHED, read_run
from maquette.artifacts.targets import node_value
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.gpus import are_elsewhere
from maquette.cli.tokens import make_tokens
from maquette.data.config import CustomDataConfig

if TYPE_CHECKING:
    from maquette.data.token_artifacts import TokensResult
    from maquette.recipe.pretraining import Recipe
    from maquette.recipe.run_spec import RunSpec
    from maquette.training import Job


@dataclasses.dataclass(frozen=True)
class PlannedJob:
    """N, D, C and the rest of one job. `inactive`: parameters of experts that a token does not go through, which N does
    not count. `kind`: its architecture; `epochs` of each domain's text; `run` and `folder` are
    None where only the settings are known, not the data. With `branches` (folders of runs, by rising tokens, the last
    of them the job's own) tokens and compute are what all of them train together. `job`: what would be run, where it
    was planned just now."""

    size: int
    tokens: int
    compute: int
    steps: int
    width: int
    layers: int
    learning_rate: float
    batch_size_tokens: int
    kind: str
    precision: str
    accelerator: str = "cpu"
    processes: int = 1
    threads: int = 1
    epochs: dict[str, float] = dataclasses.field(default_factory=dict)
    run: str | None = None
    folder: str | None = None
    branches: tuple[str, ...] = ()
    force: bool = False
    inactive: int = 0
    job: "Job | None" = dataclasses.field(default=None, compare=False, repr=False)

    @functools.cached_property
    def finished(self) -> bool:
        """Whether its run, or each of its branches, is finished."""
        folders = self.branches or ([self.folder] if self.folder else [])
        return not self.force and bool(folders) and all(map(is_finished, folders))

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "job"]
        return {name: getattr(self, name) for name in names}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> "PlannedJob":
        return cls(**(plain | {"branches": tuple(plain["branches"])}))


def is_finished(folder: str | Path) -> bool:
    """Whether the run in a folder is finished."""
    content = read_run(folder)
    return content is not None and content.get("status") == FINISHED


_READ = ("source", "corpus", "curation", "tokenizer", "shards", "pretokenized")
_shared: dict[str, "TokensResult"] = {}


def shared_tokens(config: TrainStage) -> "TokensResult":
    """The data that training reads, made where it is missing: once for all jobs of a sweep that share it."""
    parts = [dataclasses.asdict(getattr(config, name)) for name in _READ]
    if isinstance(config.data, CustomDataConfig):
        parts.append(config.data.foreign_node())
    identity = digest([*parts, config.checkpoint, str(Path(config.outputs).absolute())])
    if identity not in _shared:
        _shared[identity] = make_tokens(config)
    return _shared[identity]


def forget_shared() -> None:
    """Lets `shared_tokens` look at the sources again: a sweep begins, and they may have changed since the last."""
    _shared.clear()


def forecast(config: TrainStage, data: "TokensResult") -> PlannedJob:
    """What a job will be. Raises `ConfigError` for settings that contradict each other or this machine."""
    if node_value(config.scheduler, "branches"):
        return _forecast_tree(config, data)
    from maquette.cli.planning.pretraining import plan_pretraining, resolve_recipe

    recipe = resolve_recipe(config, data)
    run = plan_pretraining(config, data, recipe)
    planned = dataclasses.replace(
        of_recipe(config, recipe),
        epochs=_epochs(config, run.spec, data.folder),
        kind=run.spec.architecture_kind,
        precision=run.spec.precision,
        run=run.spec.name,
        folder=str(run.folder),
    )
    if are_elsewhere(config.trainer):  # where the job is checked
        return dataclasses.replace(planned, accelerator="cuda")
    job = run.job
    return dataclasses.replace(
        planned,
        accelerator=job.hardware.accelerator,
        processes=job.hardware.processes,
        threads=job.hardware.threads,
        job=job,
    )


def of_recipe(config: TrainStage, recipe: "Recipe") -> PlannedJob:
    """What the settings alone say."""
    architecture = recipe.architecture
    return PlannedJob(
        size=recipe.size,
        tokens=recipe.tokens,
        compute=recipe.compute,
        steps=recipe.steps,
        width=architecture.hidden_size,
        layers=architecture.num_hidden_layers,
        learning_rate=recipe.learning_rate,
        batch_size_tokens=recipe.batch_size_tokens,
        kind=architecture.description,
        inactive=recipe.parameters.inactive,
        precision=config.precision.kind,
        force=config.force,
    )


def _epochs(config: TrainStage, spec: "RunSpec", folder: Path) -> dict[str, float]:
    """How often each domain is read."""
    from maquette.data import MixtureOrder

    if isinstance(config.data, CustomDataConfig):
        batches = read_manifest(folder).facts["batches"]
        return {"data": spec.steps / batches} if batches else {}
    context = config.data.sequence_length
    order = MixtureOrder(
        config.mixture, training_tokens(folder), context=context, token_budget=spec.tokens, seed=config.seed
    )
    return dict(order.epochs(spec.tokens // context))


def _forecast_tree(config: TrainStage, data: "TokensResult") -> PlannedJob:
    from maquette.cli.planning.branching import plan_tree

    tree = plan_tree(config, data)
    whole = forecast(tree.branches[-1].config, data)
    return dataclasses.replace(
        whole,
        tokens=tree.tokens,
        compute=round(tree.tokens * whole.compute / whole.tokens),
        branches=tuple(str(branch.folder) for branch in tree.branches),
        force=config.force,
    )


@functools.lru_cache(maxsize=8)
def training_tokens(folder: Path) -> dict[str, int]:
    """Tokens of each domain's training text."""
    from maquette.data import TokenShards

    return TokenShards(folder, verify=False).tokens("train")
