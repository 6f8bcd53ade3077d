"""Runs a job: in this process, or in each of several that share it.

What is put together here: the module and its data on one side, callbacks and loggers on the other, and Lightning's
Trainer between them. What a run leaves when it is through is `conclusion.py`'s.
"""

import contextlib
import dataclasses
import platform
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import say
from maquette.artifacts.run_file import FAILED, INTERRUPTED, RUNNING, TRIED
from maquette.artifacts.targets import place_of
from maquette.data.process_group import ProcessGroup, join_group, process_group
from maquette.text import Tokenizer
from maquette.tracking import MLflowLogger, RunLog
from maquette.training.callbacks import EnergyUse, LossSpikeGuard, RunCheckpoint, RunContext
from maquette.training.checkpoint_io import CheckpointFolder
from maquette.training.conclusion import conclude
from maquette.training.devices import keep_large_buffers, prepared_process
from maquette.training.job import Job
from maquette.training.machine import (
    PreparedBlocks,
    matmul_peak,
    number_format_in_words,
    slow_format_in_words,
)
from maquette.training.metrics_file import MetricsFile
from maquette.training.peers import ending_together
from maquette.training.processes import ForcedExit, catch_signals, queue_again
from maquette.training.record import RunRecord, read_record
from maquette.training.trainer import build_callbacks, build_trainer, parts


def fit(job: Job) -> RunRecord:
    """Trains from the newest checkpoint, or from the beginning, to the end, and writes what the run leaves.

    Raises `StageError` where training diverges, `KeyboardInterrupt` where it was asked to stop (everything is saved).
    """
    world = process_group()
    if world.size > 1:
        join_group(job.hardware.backend)
    keep_large_buffers()
    record = read_record(job.folder)
    if record is None:  # the first process has written it
        raise StageError(
            f"{job.folder} is not on {platform.node()}.",
            "Several machines train one run in one folder: outputs= must lie on a file system that all of them see.",
        )
    loggers: list[Logger] = parts("logger", job.logger, Logger) if world.is_first else []
    with prepared_process(job.hardware, job.linear_backend), _recorded(job, record, loggers) as log:
        if world.is_first:
            record = record.update(tracking_run=log.run_id, status=RUNNING)
        try:
            with ending_together(world, lambda: _leave(record, world, FAILED)):
                return _fit_in_parts(job, record, world, log, loggers)
        except (KeyboardInterrupt, SystemExit):  # SystemExit: submitit's, in `queue_again`
            _leave(record, world, INTERRUPTED)
            raise
        except BaseException:
            _leave(record, world, FAILED)
            raise


def _fit_in_parts(
    job: Job, record: RunRecord, world: ProcessGroup, log: RunLog, loggers: Sequence[Logger]
) -> RunRecord:
    """Trains; where a device runs out of memory, again from where the run stands with steps in twice as many forward
    passes: the first step is the trial of what fits, for every objective."""
    while True:
        try:
            return _fit(job, record, world, log, loggers)
        except torch.OutOfMemoryError:
            pass  # and what its frames hold is let go of
        job = _in_more_passes(job, world)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _in_more_passes(job: Job, world: ProcessGroup) -> Job:
    """Raises `StageError` where the settings say how a step is split, or it can't be split further."""
    tokenizer = Tokenizer.load(job.spec.tokenizer)
    passes = job.plan.open(job, tokenizer).accumulate
    smaller = dataclasses.replace(job, hardware=dataclasses.replace(job.hardware, min_passes=2 * passes))
    more = job.plan.open(smaller, tokenizer).accumulate
    if world.size > 1 or more <= passes:  # other processes wait for this one's gradients
        raise StageError(
            f"{job.name}: the device has not enough memory for a step in {passes} forward passes.",
            "Set data.micro_batch_size lower, activation_checkpointing=block, or share the weights out: trainer=fsdp.",
        )
    say(f"{job.name}: out of memory with {passes} forward passes a step; again with {more}")
    return smaller


def _fit(job: Job, record: RunRecord, world: ProcessGroup, log: RunLog, loggers: Sequence[Logger]) -> RunRecord:
    tokenizer = Tokenizer.load(job.spec.tokenizer)
    opened = job.plan.open(job, tokenizer)
    checkpoints = CheckpointFolder(job.folder / "checkpoints")
    first_step, checkpoint = checkpoints.newest(say, world) or (0, None)
    if checkpoint is not None and world.is_first:
        say(f"{job.name}: resuming from step {first_step:,} of {job.spec.steps:,}")
    # Measured, where it is not published, before anything else is on the device.
    peak = matmul_peak(job.hardware.device, job.hardware.precision, job.outputs / "machine.json")
    if world.is_first and job.hardware.accelerator != "cpu":
        say(f"{job.name}: {number_format_in_words(job.hardware, torch.cuda.get_device_name(), peak)}")
    if world.is_first and (remark := slow_format_in_words(job.hardware)) is not None:
        say(f"{job.name}: {remark}")
    with _metrics(job, world, resumes=checkpoint is not None) as metrics, catch_signals() as stop_signal:
        run = RunContext(
            folder=job.folder,
            steps=job.spec.steps,
            batch_size_tokens=job.spec.batch_size_tokens,
            flops_per_token=job.spec.compute / job.spec.tokens,
            peak_flops=job.hardware.world_size * peak,
            validations=job.num_validations,
            stop_signal=stop_signal,
            metrics=metrics,
            steps_per_epoch=opened.steps_per_epoch,
            kept_steps=job.kept_steps,
        )
        energy = EnergyUse(job.hardware.world_size, gpu=job.hardware.accelerator != "cpu")
        callbacks = [*build_callbacks(job, run), PreparedBlocks(job), energy]
        trainer = build_trainer(job, opened, callbacks, [*([metrics] if metrics is not None else []), *loggers])
        for seed in (random.seed, np.random.seed, torch.manual_seed):  # for dropout; initial weights have their own
            seed(job.spec.seed + world.rank // job.hardware.tensor_parallel_size)
        try:
            trainer.fit(opened.module, datamodule=opened.data, ckpt_path=checkpoint, weights_only=True)
        except (SIGTERMException, ForcedExit):
            raise KeyboardInterrupt from None
        except SystemExit as error:  # of a callback, a dataset, a loss: the run is not what was asked for
            raise StageError(f"{job.name}: sys.exit was called{place_of(error)}.", "Raise an error instead.") from error
        finally:
            torch.compiler.set_stance("default")
    if job.trainer.fast_dev_run:
        return record.update(status=TRIED) if world.is_first else record
    checkpointing = next((one for one in callbacks if isinstance(one, RunCheckpoint)), None)
    guard = next((one for one in callbacks if isinstance(one, LossSpikeGuard)), None)
    interrupted = checkpointing is not None and checkpointing.interrupted
    if world.is_first:
        record = conclude(
            job, record, log, opened, trainer, spikes=0 if guard is None else guard.spikes, energy=energy.facts,
            finished=not interrupted,
        )  # fmt: skip
        if not interrupted and record.step < job.spec.steps:
            say(
                f"{job.name}: ended early, after step {record.step:,} of {job.spec.steps:,}, by a callback or a limit "
                "of the trainer; laws leave it out"
            )
    if interrupted:
        if world.is_first:
            say(
                f"{job.name}: stopped after step {record.step:,} of {job.spec.steps:,}; run the command again to resume"
            )
        queue_again(stop_signal)
        raise KeyboardInterrupt
    return record


@contextlib.contextmanager
def _recorded(job: Job, record: RunRecord, loggers: Sequence[Logger]) -> Iterator[RunLog]:
    """The run's record in MLflow; one that records nothing where our logger is not among them."""
    logger = next((one for one in loggers if isinstance(one, MLflowLogger)), None)
    if logger is None:
        yield RunLog()
        return
    with logger.recording(
        name=job.name, folder=job.folder, params=job.spec.params, tags=job.tags, run_id=record.tracking_run
    ) as log:
        log.set_tags({"compiled": job.compiled, "linear_backend": job.linear_backend})
        log.log_datasets(job.spec.datasets)
        yield log


@contextlib.contextmanager
def _metrics(job: Job, world: ProcessGroup, *, resumes: bool) -> Iterator[MetricsFile | None]:
    if not world.is_first:
        yield None
        return
    metrics = MetricsFile(job.folder / "metrics.jsonl")
    if not resumes:
        metrics.cut()
    try:
        yield metrics
    finally:
        metrics.close()


def _leave(record: RunRecord, world: ProcessGroup, status: str) -> None:
    if world.is_first and (latest := read_record(record.folder)) is not None:
        latest.update(status=status)
