"""`maquette train`: one model, one objective.

Run the command again to find a finished run, or to resume one that was stopped: what the settings and the data come to
(planning/) gives a run its folder.
"""

import dataclasses
import functools
from collections.abc import Callable

from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.model_config import EvaluateStage
from maquette.cli.planning import branching
from maquette.cli.planning.planned import plan_once
from maquette.cli.planning.pretraining import PlannedRun
from maquette.data.process_group import process_group
from maquette.data.token_artifacts import TokensResult
from maquette.training.record import RunRecord


def run(config: TrainStage, data: TokensResult | None = None) -> RunRecord:
    """Trains the model that the settings describe, from raw documents if need be, and returns its record.

    `data` is what `tokens.make_tokens(config)` gave, where it has been called already.
    Raises `ConfigError` for settings that contradict each other or this machine, `StageError` where data is damaged or
    training diverges, `KeyboardInterrupt` where it was stopped; then the same call resumes it.
    """
    planned = plan_once(config, data)
    if isinstance(planned, PlannedRun):
        return train(planned)
    trunk = record = train(planned.trunk)
    for one in planned.branches:
        branch = branching.below(trunk.tracking_run, one)
        record = train(branch, functools.partial(branching.resume_from_trunk, planned, branch))
    return record


def train(run: PlannedRun, resume_from_trunk: Callable[[], bool] | None = None) -> RunRecord:
    """One run from where it stands (`train_job`), and its evaluation where the settings name a suite."""
    config, record = run.config, run.finished()
    if record is None:
        from maquette.training.train_job import train_job

        # Examples have shapes of their own in every batch, and compiling for each would not pay.
        compile = config.compile if config.objective.entry.compiles else "off"
        record = train_job(
            run.job, compile=compile, force=config.force, parent_run=config.tracking.parent,
            resume_from_trunk=resume_from_trunk,
        )  # fmt: skip
    if process_group().is_first and not config.suite.empty:
        from maquette.cli import evaluate

        evaluation = EvaluateStage(checkpoint=record.folder, suite=config.suite, protocol=config.protocol)
        evaluation.outputs, evaluation.tracking = config.outputs, dataclasses.replace(config.tracking, run_name=None)
        evaluate.run(evaluation)
    return record
