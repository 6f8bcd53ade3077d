"""A job from where its run stands: finished, begun earlier or new; in this process, in those beside it, or in new ones.

The record in the run's folder says how far it came. A second command that means the same run waits for the first.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable
from typing import Any

from omegaconf import OmegaConf

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import locked, write_text
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import FINISHED
from maquette.data.process_group import ProcessGroup, agree, join_group, process_group
from maquette.training.devices import Hardware
from maquette.training.fitting import fit
from maquette.training.job import Job
from maquette.training.machine import choose_linear_backend, compiler_works, wants_compilation
from maquette.training.processes import launch
from maquette.training.record import RunRecord, begin_record, find_record, why_trained_again


def train_job(
    job: Job,
    *,
    compile: str,
    force: bool = False,
    parent_run: str | None = None,
    resume_from_trunk: Callable[[], bool] | None = None,
) -> RunRecord:
    """Trains it, or resumes it, and returns its record.

    `compile`: the setting; `force`: from the beginning; `parent_run`: MLflow's, of its sweep; `resume_from_trunk`
    lets a run that has not begun resume from another's checkpoint, False: there is none.
    Raises `ConfigError` where other processes were started than the settings say, and as `fit`.
    """
    group = meet(job.hardware)
    if job.spec.is_trial:
        return _attempt(job, group)
    # The first of several processes decides; a second command that means the same run waits here for the first.
    with locked(job.folder) if group.is_first else contextlib.nullcontext():
        done = _begin(job, compile, force, parent_run) if group.is_first else None
        if group.size > 1:
            done = agree(done)
        assert done is not None
        if done.status == FINISHED:
            return done
        if resume_from_trunk is not None and group.is_first and not resume_from_trunk():
            say(f"run {job.name}: the trunk's checkpoint is gone; it trains from the beginning")
        record = _fit(dataclasses.replace(job, compiled=done.compiled, linear_backend=done.linear_backend), group)
    if group.is_first:
        say(f"run {record.name}: {record.summary}; in {record.folder}")
    return record


def _fit(job: Job, group: ProcessGroup) -> RunRecord:
    """In the processes that are there, or in as many as the settings say."""
    if job.hardware.world_size > group.size:
        record: RunRecord = launch(fit, job, job.hardware.processes)
        return record
    return fit(job)


def _attempt(job: Job, group: ProcessGroup) -> RunRecord:
    """A run of a batch or a few through every hook, in a folder of its own that no other run is looked for in."""
    job = dataclasses.replace(job, logger={})
    if group.is_first:
        shutil.rmtree(job.folder, ignore_errors=True)
        begin_record(job.spec, job.folder).save()
    record = _fit(job, group)
    if group.is_first:
        say(f"run {job.name}: trainer.fast_dev_run={job.trainer.fast_dev_run} went through; nothing is recorded")
    return record


def meet(hardware: Hardware) -> ProcessGroup:
    """This process's place, after meeting those that torchrun or srun started beside it.

    Raises `ConfigError` where they are not as many as the settings say.
    """
    group = process_group()
    expected = hardware.world_size
    if group.size > 1 and group.size != expected:
        raise ConfigError(
            f"{group.size} processes were started; trainer.devices x trainer.num_nodes is {expected}.",
            "Start as many as the settings say.",
        )
    if group.size == 1 and hardware.nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={hardware.nodes}, but nothing started this command on the other machines.",
            "Use torchrun or srun (hydra/launcher=submitit_slurm) to start it on each.",
        )
    if group.size > 1:
        join_group(hardware.backend)
    return group


def _begin(job: Job, compile: str, force: bool, parent_run: str | None) -> RunRecord:
    """The record of the run as it stands: finished, begun earlier, or new and written just now."""
    finished = None if force else find_record(job.spec, job.outputs)
    if finished is not None:
        return finished
    if job.folder.exists():
        shutil.rmtree(job.folder)
    if not force and (reason := why_trained_again(job.spec, job.outputs)):
        say(f"run {job.name}: {reason}")
    compiled = wants_compilation(compile, job.spec.compute, job.hardware) and compiler_works(say)
    settings: dict[str, Any] = job.spec.settings
    write_text(job.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)))
    record = begin_record(
        job.spec, job.folder, compiled=compiled, linear_backend=choose_linear_backend(job),
        parent_run=parent_run,
    )  # fmt: skip
    record.save()
    return record
