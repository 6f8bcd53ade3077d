"""What a training job will be, before it runs: its numbers, its folder, and whether it is done already."""

import dataclasses
import functools
from pathlib import Path

from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.nodes import node_value
from maquette.data import MixtureOrder, TokenShards
from maquette.data.config import CustomDataConfig
from maquette.stages.branching import plan_tree, run_folders
from maquette.stages.config import TrainStage
from maquette.stages.planning import plan_job, resolve_recipe
from maquette.stages.tokens import TokensResult
from maquette.training import Job, read_record
from maquette.training.record import FINISHED


@dataclasses.dataclass(frozen=True)
class Forecast:
    """One job, what it costs and whether it is done. `epochs` of each domain's text; `loss` where it is finished
    already. With `branches` (folders of runs, by rising horizon, the last of them
    the job's own) tokens and compute are what all of them train together."""

    job: Job
    tokens: int
    compute: int
    epochs: dict[str, float]
    finished: bool
    loss: float | None
    branches: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        return self.job.spec.size

    @property
    def kind(self) -> str:
        """What sort of model it is: those of one kind train at comparable speeds."""
        return self.job.spec.architecture_kind

    @property
    def run(self) -> str:
        return self.job.name

    @property
    def folder(self) -> Path:
        return self.job.folder


def forecast(config: TrainStage, data: TokensResult) -> Forecast:
    """Raises `ConfigError` for settings that contradict each other or this machine."""
    if node_value(config.scheduler, "branches"):
        return _forecast_tree(config, data)
    job = plan_job(config, resolve_recipe(config, data), data)
    record = None if config.force else read_record(job.folder)
    finished = record is not None and record.status == FINISHED
    return Forecast(
        job=job,
        tokens=job.spec.tokens,
        compute=job.spec.compute,
        epochs=_epochs(config, job, data.folder),
        finished=finished,
        loss=record.validation_loss if finished and record is not None else None,
    )


def _forecast_tree(config: TrainStage, data: TokensResult) -> Forecast:
    tree = plan_tree(config, data)
    whole = forecast(tree.branches[-1].config, data)
    records = [None if config.force else read_record(branch.job.folder) for branch in tree.branches]
    return dataclasses.replace(
        whole,
        tokens=tree.tokens,
        compute=round(tree.tokens * whole.compute / whole.tokens),
        finished=all(record is not None and record.status == FINISHED for record in records),
        branches=tuple(run_folders(tree)),
    )


def _epochs(config: TrainStage, job: Job, folder: Path) -> dict[str, float]:
    """How often each domain is read."""
    if isinstance(config.data, CustomDataConfig):
        batches = read_manifest(folder).facts["batches"]
        return {"data": job.steps / batches} if batches else {}
    context = config.data.sequence_length
    order = MixtureOrder(
        config.mixture, _training_tokens(folder), context=context, token_budget=job.tokens, seed=config.seed
    )
    return dict(order.epochs(job.tokens // context))


@functools.lru_cache(maxsize=8)
def _training_tokens(folder: Path) -> dict[str, int]:
    return TokenShards(folder, verify=False).tokens("train")
