"""`maquette train`: one model, one objective.

Run the command again to find a finished run, or to resume one that was stopped: what the settings and the data come to
(planning/) gives a run its folder.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.targets import node_value
from maquette.cli import tokens as tokens_stage
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.model_config import EvaluateStage
from maquette.cli.planning.pretraining import job_of, plan_of, resolve_recipe, spec_of
from maquette.data.config import CustomDataConfig
from maquette.data.process_group import process_group
from maquette.data.token_artifacts import TokensResult
from maquette.scaling.predictions.prediction import check_predicted
from maquette.training.record import RunRecord, find_record

if TYPE_CHECKING:
    from maquette.cli.sweeps.forecast import PlannedJob
    from maquette.training import Job


def run(config: TrainStage, data: TokensResult | None = None) -> RunRecord:
    """Trains the model that the settings describe, from raw documents if need be, and returns its record.

    `data` is what `tokens.make_tokens(config)` gave, where it has been called already.
    Raises `ConfigError` for settings that contradict each other or this machine, `StageError` where data is damaged or
    training diverges, `KeyboardInterrupt` where it was stopped; then the same call resumes it.
    """
    if node_value(config.scheduler, "branches"):
        return _run_branches(config, data)
    if not config.objective.entry.reads_text:
        from maquette.cli.planning.post_training import PLANS

        return _train(config, PLANS[config.objective.entry.reads](config))
    return _pretrain(config, data or tokens_stage.make_tokens(config))


def _pretrain(config: TrainStage, data: TokensResult) -> RunRecord:
    """A run that is finished is found by what it is, before torch or anything of its hardware is looked at."""
    recipe = resolve_recipe(config, data)
    spec = spec_of(config, recipe, data)
    prediction = None if config.prediction is None else check_predicted(config.prediction, config.outputs, spec)
    if prediction is not None:
        spec = dataclasses.replace(spec, prediction=prediction.digest)
    if not (config.force or spec.is_trial) and process_group().size == 1:
        record = find_record(spec, config.outputs, finished=True)
        if record is not None:
            return _evaluated(config, record)
    return _train(config, job_of(config, spec, plan_of(config, data), prediction))


def _run_branches(config: TrainStage, data: TokensResult | None) -> RunRecord:
    """Trains a trunk and all that branches off; returns the record of the longest. See branching.py."""
    from maquette.cli.planning import branching

    if config.prediction is not None or not config.objective.entry.branches:
        raise ConfigError(
            "scheduler.branches makes several pretraining runs.", "Leave it out with a prediction or another objective."
        )
    tree = branching.plan_tree(config, data or tokens_stage.make_tokens(config))
    trunk = record = _train(tree.trunk.config, tree.trunk.job)
    for one in tree.branches:
        branch = branching.below(trunk.tracking_run, one)
        resume_from_trunk = functools.partial(branching.resume_from_trunk, tree, branch)
        record = _train(branch.config, branch.job, resume_from_trunk=resume_from_trunk)
    return record


def _train(config: TrainStage, job: "Job", *, resume_from_trunk: Callable[[], bool] | None = None) -> RunRecord:
    """One run, from where it stands; see `train_job`."""
    from maquette.training.train_job import train_job

    # Examples have shapes of their own in every batch, and compiling for each would not pay.
    compile = config.compile if config.objective.entry.compiles else "off"
    record = train_job(
        job, compile=compile, force=config.force, parent_run=config.tracking.parent,
        resume_from_trunk=resume_from_trunk,
    )  # fmt: skip
    return _evaluated(config, record)


def _evaluated(config: TrainStage, record: RunRecord) -> RunRecord:
    """The run, after its evaluation where the settings name a suite."""
    if process_group().is_first and not config.suite.empty:
        from maquette.cli import evaluate

        evaluate.run(
            EvaluateStage(
                outputs=config.outputs, checkpoint=record.folder, suite=config.suite, protocol=config.protocol,
                tracking=dataclasses.replace(config.tracking, run_name=None),
            )
        )  # fmt: skip
    return record


def prepare(config: TrainStage) -> TokensResult:
    """The data that training reads, made where it is missing: once for all jobs of a sweep that share it."""
    parts = [dataclasses.asdict(getattr(config, name)) for name in _READ]
    if isinstance(config.data, CustomDataConfig):
        parts.append(config.data.foreign_node())
    identity = digest([*parts, config.checkpoint, str(Path(config.outputs).absolute())])
    if identity not in _prepared:
        _prepared[identity] = tokens_stage.make_tokens(config)
    return _prepared[identity]


_READ = ("source", "corpus", "curation", "tokenizer", "shards", "pretokenized")
_prepared: dict[str, TokensResult] = {}


def forget_prepared() -> None:
    """Lets `prepare` look at the sources again: a sweep begins, and they may have changed since the last."""
    _prepared.clear()


def forecast(config: TrainStage, data: TokensResult) -> "PlannedJob":
    """What a job of a sweep will be; see `sweeps.forecast`."""
    from maquette.cli.sweeps.forecast import forecast as foresee

    return foresee(config, data)
