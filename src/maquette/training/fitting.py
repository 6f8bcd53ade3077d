"""Runs a job: in this process, or in each of several that share it.

What is put together here: the workload (objective, batches, judge) on one side, the monitor and its instruments on the
other, and Lightning's Trainer between them. What a run leaves when it is through is `conclusion.py`'s.
"""

import contextlib
import math
import random
from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from maquette.artifacts.progress import say
from maquette.model.linear import use_backend
from maquette.text import Tokenizer
from maquette.tracking import RunLog, start_run
from maquette.training import record as records
from maquette.training.checkpoints import CheckpointFolder
from maquette.training.compilation import blocks
from maquette.training.conclusion import conclude
from maquette.training.devices import prepare_process
from maquette.training.display import display
from maquette.training.guard import LossGuard
from maquette.training.history import History
from maquette.training.interruption import Abandoned, listening
from maquette.training.job import Job
from maquette.training.machine import matmul_peak
from maquette.training.memory import keep_large_buffers
from maquette.training.monitor import Course, Instruments, Monitor
from maquette.training.processes import World, join_group, this_world
from maquette.training.record import RunRecord
from maquette.training.speed import TimedBatches
from maquette.training.trainer import build_trainer


def fit(job: Job) -> RunRecord:
    """Trains from the newest checkpoint, or from the beginning, to the end, and writes what the run leaves.

    Raises `StageError` where training diverges, `KeyboardInterrupt` where it was asked to stop (everything is saved).
    """
    world = this_world()
    if world.size > 1:
        join_group(job.hardware.backend)
    prepare_process(job.hardware)
    use_backend(job.linear_backend)
    keep_large_buffers()
    record = records.read_record(job.folder)
    assert record is not None  # the stage has written it
    with _tracked(job, record, world) as log:
        if world.is_first:
            record = record.update(tracking_run=log.run_id, status=records.RUNNING)
        try:
            return _fit(job, record, world, log)
        except KeyboardInterrupt:
            _leave(record, world, records.INTERRUPTED)
            raise
        except BaseException:
            _leave(record, world, records.FAILED)
            raise


def _fit(job: Job, record: RunRecord, world: World, log: RunLog) -> RunRecord:
    tokenizer = Tokenizer.load(job.tokenizer_folder)
    workload = job.plan.open(job, tokenizer, world)
    objective = workload.objective
    checkpoints = CheckpointFolder(job.folder / "checkpoints", keep=job.trainer.keep_checkpoints, kept=job.kept_steps)
    first_step, checkpoint = checkpoints.newest(say) or (0, None)
    if checkpoint is not None and world.is_first:
        say(f"{job.name}: going on from step {first_step:,} of {job.steps:,}")
    batches = TimedBatches(workload.batches)
    with (
        display(job.name, job.steps, job.batch_size_tokens, first_step=first_step, visible=world.is_first) as shown,
        _history(job, world, first_step) as history,
        listening() as interruption,
    ):

        def sample(step: int) -> None:
            if history is not None and job.hardware.strategy != "fsdp":  # sharded weights have no one to write
                history.note(step, {"samples": workload.write_samples(step)})

        guard = LossGuard(
            job.trainer.spike_factor if workload.watches_spikes else math.inf,
            workload.describe,
            shown.remark,
            scaled=job.hardware.precision == "16-mixed",
        )
        course = Course(
            steps=job.steps,
            batch_size_tokens=job.batch_size_tokens,
            flops_per_token=job.flops / job.tokens,
            peak_flops=job.hardware.world_size
            * matmul_peak(job.hardware.device, job.hardware.precision, job.outputs / "machine.json"),
            validation_steps=job.validation_steps,
            steps_per_epoch=workload.steps_per_epoch,
            kept_steps=job.kept_steps,
            judges_start=workload.judges_start,
        )
        instruments = Instruments(
            batches, checkpoints, guard, shown, log, history, interruption, workload.judge, sample
        )
        monitor = Monitor(course, job.trainer, instruments)
        trainer = build_trainer(
            job.hardware,
            steps=job.steps,
            accumulate=workload.micro_batches_per_step,
            callbacks=[monitor],
            blocks={type(block) for block in blocks(workload.core)},
            steps_per_epoch=workload.steps_per_epoch,
        )
        for seed in (random.seed, np.random.seed, torch.manual_seed):  # for dropout; initial weights have their own
            seed(job.seed + world.rank)
        try:
            trainer.fit(objective, batches, ckpt_path=checkpoint, weights_only=True)
        except (SIGTERMException, Abandoned):
            raise KeyboardInterrupt from None
        interrupted, seconds = monitor.interrupted, monitor.seconds_so_far
    if world.is_first:
        record = conclude(job, record, log, workload, seconds=seconds, spikes=guard.spikes, finished=not interrupted)
    if interrupted:
        if world.is_first:
            say(
                f"{job.name}: stopped after step {record.step:,} of {job.steps:,}; type the same command again to go on"
            )
        raise KeyboardInterrupt
    return record


@contextlib.contextmanager
def _tracked(job: Job, record: RunRecord, world: World) -> Iterator[RunLog]:
    """The run's record in the tracker; the other processes keep none."""
    if not world.is_first:
        yield RunLog()
        return
    with start_run(
        job.tracking, outputs=job.outputs, name=job.name, folder=job.folder, params=job.params, tags=job.tags,
        run_id=record.tracking_run, num_nodes=job.hardware.nodes,
    ) as log:  # fmt: skip
        log.set_tags({"compiled": job.compiled, "linear_backend": job.linear_backend})
        yield log


@contextlib.contextmanager
def _history(job: Job, world: World, first_step: int) -> Iterator[History | None]:
    if not world.is_first:
        yield None
        return
    # A run that begins anew judges its start anew.
    history = History(job.folder / "metrics.jsonl", last_step=first_step if first_step else -1)
    try:
        yield history
    finally:
        history.close()


def _leave(record: RunRecord, world: World, status: str) -> None:
    if world.is_first and (latest := records.read_record(record.folder)) is not None:
        latest.update(status=status)
