"""`maquette train`: one model, one objective.

Typing the same line again finds a finished run, or goes on with one that was stopped: what the settings and the data
come to (planning.py) gives a run its folder.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest, locked, write_text
from maquette.artifacts.progress import say
from maquette.artifacts.targets import node_value
from maquette.data.config import CustomDataConfig
from maquette.data.process_group import ProcessGroup, agree, join_group, process_group
from maquette.model.loading import load_tokenizer, model_folder
from maquette.objectives.config import ExampleConfig, PolicyConfig
from maquette.stages import branching
from maquette.stages import corpus as corpus_stage
from maquette.stages import evaluate as evaluate_stage
from maquette.stages import tokens as tokens_stage
from maquette.stages.config import TrainStage
from maquette.stages.model_config import EvaluateStage
from maquette.stages.planning import plan_job, predicted, resolve_recipe
from maquette.stages.post_training import plan_examples, plan_policy
from maquette.stages.predicted import check_predicted
from maquette.stages.tokens import TokensResult
from maquette.text import Tokenizer
from maquette.training import Job, RunRecord, fit, read_record
from maquette.training.machine import choose_linear_backend, compiler_works, wants_compilation
from maquette.training.processes import launch
from maquette.training.record import FINISHED, begin_record, why_trained_again

if TYPE_CHECKING:
    from maquette.stages.sweeps.forecast import Forecast


def run(config: TrainStage, data: TokensResult | None = None) -> RunRecord:
    """Trains the model that the settings describe, from raw documents if need be, and returns its record.

    `data` is what `make_tokens(config)` gave, where it has been called already.
    Raises `ConfigError` for settings that contradict each other or this machine, `StageError` where data is damaged or
    training diverges, `KeyboardInterrupt` where it was stopped; then the same call goes on.
    """
    if node_value(config.scheduler, "branches"):
        return _run_branches(config, data)
    return _train(config, planned(config, data))


def _run_branches(config: TrainStage, data: TokensResult | None) -> RunRecord:
    """Trains a trunk and all that branches off; returns the record of the longest. See branching.py."""
    if config.prediction is not None or not config.objective.entry.branches:
        raise ConfigError(
            "scheduler.branches makes several pretraining runs.", "Leave it out with a prediction or another objective."
        )
    tree = branching.plan_tree(config, data or make_tokens(config))
    trunk = record = _train(tree.trunk.config, tree.trunk.job)
    for one in tree.branches:
        branch = branching.below(trunk.tracking_run, one)
        graft = functools.partial(branching.graft, tree, branch)
        record = _train(branch.config, branch.job, graft=graft)
    return record


def _train(config: TrainStage, job: Job, *, graft: Callable[[], bool] | None = None) -> RunRecord:
    """One run, from where it stands. `graft` lets one that has not begun go on from another's checkpoint; False: there
    is none."""
    group = _meet(job)
    record = _fitted(config, job, group, graft)
    if group.is_first and not config.suite.empty:
        evaluate_stage.run(
            EvaluateStage(
                outputs=config.outputs, checkpoint=record.folder, suite=config.suite, protocol=config.protocol,
                tracking=dataclasses.replace(config.tracking, run_name=None),
            )
        )  # fmt: skip
    return record


def _fitted(config: TrainStage, job: Job, group: ProcessGroup, graft: Callable[[], bool] | None) -> RunRecord:
    if job.spec.is_trial:
        return _tried(config, job, group)
    # The first of several processes decides; a second command that means the same run waits here for the first.
    with locked(job.folder) if group.is_first else contextlib.nullcontext():
        done = _begin(config, job) if group.is_first else None
        if group.size > 1:
            done = agree(done)
        assert done is not None
        if done.status == FINISHED:
            return done
        if graft is not None and group.is_first and not graft():
            say(f"run {job.name}: the trunk's checkpoint is gone; it trains from the beginning")
        job = dataclasses.replace(job, compiled=done.compiled, linear_backend=done.linear_backend)
        if job.hardware.world_size > group.size:
            record: RunRecord = launch(fit, job, job.hardware.processes)
        else:
            record = fit(job)
    if group.is_first:
        _tell(record)
    return record


def _tried(config: TrainStage, job: Job, group: ProcessGroup) -> RunRecord:
    """A run of a batch or a few through every hook, in a folder of its own that no other run is looked for in."""
    job = dataclasses.replace(job, logger={})
    if group.is_first:
        shutil.rmtree(job.folder, ignore_errors=True)
        begin_record(job.spec, job.folder).save()
    if job.hardware.world_size > group.size:
        record: RunRecord = launch(fit, job, job.hardware.processes)
    else:
        record = fit(job)
    if group.is_first:
        say(f"run {job.name}: trainer.fast_dev_run={config.trainer.fast_dev_run} went through; nothing is recorded")
    return record


def planned(config: TrainStage, data: TokensResult | None = None) -> Job:
    """The job of the settings' objective; what they need of earlier stages is made."""
    if isinstance(config.objective, PolicyConfig):
        return plan_policy(config)
    if isinstance(config.objective, ExampleConfig):
        return plan_examples(config)
    data = data or make_tokens(config)
    job = plan_job(config, resolve_recipe(config, data), data)
    if config.prediction is None:
        return job
    return predicted(job, check_predicted(config.prediction, config.outputs, job.spec))


def prepare(config: TrainStage) -> TokensResult:
    """The data that training reads, made where it is missing: once for all jobs of a sweep that share it."""
    identity = digest(
        [
            dataclasses.asdict(part)
            for part in (
                config.source,
                config.corpus,
                config.curation,
                config.tokenizer,
                config.shards,
                config.pretokenized,
            )
        ]
        + ([config.data.foreign_node()] if isinstance(config.data, CustomDataConfig) else [])
        + [config.checkpoint, str(Path(config.outputs).absolute())]
    )
    if identity not in _prepared:
        _prepared[identity] = make_tokens(config)
    return _prepared[identity]


_prepared: dict[str, TokensResult] = {}


def forget_prepared() -> None:
    """Lets `prepare` look at the sources again: a sweep begins, and they may have changed since the last."""
    _prepared.clear()


def forecast(config: TrainStage, data: TokensResult) -> "Forecast":
    """What a job of a sweep will be; see `sweeps.forecast`."""
    from maquette.stages.sweeps.forecast import forecast as foresee

    return foresee(config, data)


def make_tokens(config: TrainStage) -> TokensResult:
    """Tokens of the corpus: by a tokenizer made for it, or by that of the model to start from."""
    upstream, start = dataclasses.replace(config, force=False), config.starting_folder
    if isinstance(config.data, CustomDataConfig):
        data = tokens_stage.of_custom_data(upstream, config.data.foreign_node(), config.seed)
        return data if start is None else _same_tokenizer(data, start)
    if start is None:
        return tokens_stage.run(upstream)
    if config.pretokenized.path is not None:
        return _same_tokenizer(tokens_stage.run(upstream), start)
    return tokens_stage.encode(upstream, corpus_stage.run(upstream), model_folder(start))


def _same_tokenizer(data: TokensResult, start: Path) -> TokensResult:
    if load_tokenizer(start).digest != Tokenizer.load(data.tokenizer).digest:
        raise ConfigError(
            f"The model to start from ({start}) reads other tokens than these.",
            f"Give its tokenizer, if it is theirs: pretokenized.tokenizer={model_folder(start)}.",
        )
    return data


def _meet(job: Job) -> ProcessGroup:
    """This process's place, after meeting those that torchrun or srun started beside it.

    Raises `ConfigError` where they are not as many as the settings say.
    """
    group = process_group()
    wanted = job.hardware.world_size
    if group.size > 1 and group.size != wanted:
        raise ConfigError(
            f"{group.size} processes were started; trainer.devices x trainer.num_nodes is {wanted}.",
            "Start as many as the settings say.",
        )
    if group.size == 1 and job.hardware.nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={job.hardware.nodes}, but nothing started this command on the other machines.",
            "Use torchrun or srun (hydra/launcher=submitit_slurm) to start it on each.",
        )
    if group.size > 1:
        join_group(job.hardware.backend)
    return group


def _begin(config: TrainStage, job: Job) -> RunRecord:
    """The record of the run as it stands: finished, begun earlier, or new and written just now."""
    found = None if config.force else read_record(job.folder)
    if found is not None:
        if job.spec.prediction not in (None, found.spec.prediction):
            say(f"run {job.name} was begun before this prediction was written: it can't decide it")
        if found.status == FINISHED:
            say(f"run {job.name}: nothing to do, already trained: {found.summary}")
        return found
    if job.folder.exists():
        shutil.rmtree(job.folder)
    if not config.force and (reason := why_trained_again(job.spec, job.outputs)):
        say(f"run {job.name}: {reason}")
    # Examples have shapes of their own in every batch, and compiling for each would not pay.
    compiled = (
        config.objective.entry.compiles
        and wants_compilation(config.compile, job.spec.compute, job.hardware)
        and compiler_works(say)
    )
    _write_settings(job.folder / "config.yaml", job.spec.settings)
    record = begin_record(
        job.spec, job.folder, compiled=compiled, linear_backend=choose_linear_backend(job),
        parent_run=config.tracking.parent,
    )  # fmt: skip
    record.save()
    return record


def _write_settings(path: Path, settings: dict[str, Any]) -> None:
    from omegaconf import OmegaConf

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(settings)))


def _tell(record: RunRecord) -> None:
    say(f"run {record.name}: {record.summary}; in {record.folder}")
