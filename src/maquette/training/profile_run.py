"""A run's own module, data, callbacks and Trainer for a few steps, measured (profiling.py): nothing is recorded, and no
checkpoint is written."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from maquette.artifacts.errors import ConfigError, StageError
from maquette.text import Tokenizer
from maquette.training.callbacks import Progress, RunCheckpoint, RunContext, Samples, ValidationSchedule
from maquette.training.devices import keep_large_buffers, prepared_process
from maquette.training.job import Job
from maquette.training.machine import PreparedBlocks, choose_linear_backend, measure_bandwidth, measure_peak
from maquette.training.metrics_file import MetricsFile
from maquette.training.processes import StopSignal
from maquette.training.profiling import PhaseProfiler, StepProfile
from maquette.training.trainer import build_callbacks, build_trainer

_NOT_OF_A_STEP = (RunCheckpoint, Samples, ValidationSchedule, Progress)

_WORTH_A_POINT = 0.005
"""Operators with a smaller share of the time are not in the roofline picture."""


@dataclasses.dataclass(frozen=True)
class OperatorCost:
    """Of one kind of operator in a step. `bytes`: of inputs and outputs."""

    name: str
    calls: int
    seconds: float
    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOPs a byte that is read or written."""
        return self.flops / max(1, self.bytes)

    @property
    def speed(self) -> float:
        """FLOP/s"""
        return self.flops / max(1e-12, self.seconds)


@dataclasses.dataclass(frozen=True)
class Profile:
    """`phases`, `parts`: seconds of a step by name. `flops`: of a step as laws count them (`training_flops`); `peak`:
    FLOP/s and `bandwidth`: bytes a second that this machine was measured to reach. `memory`: bytes at the fullest
    moment of a step; `predicted`: what step_memory.py says of it, where it can. `top`: operators as PyTorch's profiler
    ranks them: name, calls, seconds of their own."""

    run: str
    objective: str
    device: str
    precision: str
    steps: int
    tokens: int
    passes: int
    flops: float
    peak: float
    bandwidth: float
    phases: dict[str, float]
    parts: dict[str, float]
    memory: dict[str, int]
    top: list[tuple[str, int, float]]
    operators: list[OperatorCost]
    predicted: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(self.phases.values())

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation (Chowdhery et al. 2022, appendix B) of the whole step."""
        return self.flops / self.seconds / self.peak

    @property
    def shares(self) -> dict[str, float]:
        return {name: value / self.seconds for name, value in self.phases.items()}

    def main_operators(self) -> list[OperatorCost]:
        """Those that take a share worth a point in a picture, the longest first."""
        total = sum(one.seconds for one in self.operators)
        return [one for one in self.operators if one.seconds > _WORTH_A_POINT * total]

    def facts(self) -> dict[str, Any]:
        """As plain values, with what follows from them."""
        return dataclasses.asdict(self) | {"seconds": self.seconds, "mfu": self.mfu, "shares": self.shares}


def profile_job(job: Job, num_steps: int, folder: Path) -> Profile:
    """Trains for some steps in this process and measures them; writes `folder`/trace.json.

    Raises `ConfigError` where the run is too short, and as training does."""
    job = dataclasses.replace(
        job,
        hardware=dataclasses.replace(job.hardware, processes=1, nodes=1, strategy="single"),
        trainer=dataclasses.replace(job.trainer, limit_val_batches=0, num_sanity_val_steps=0),
    )
    profiler = PhaseProfiler()
    profile = StepProfile(profiler, num_steps, folder / "trace.json")
    if job.spec.steps < profile.steps:
        raise ConfigError(
            f"The run has {job.spec.steps} steps, and measuring takes {profile.steps}.",
            "Give it more tokens, or set profile_steps lower.",
        )
    backend, hardware = choose_linear_backend(job), job.hardware
    keep_large_buffers()
    with prepared_process(hardware, backend):
        peak = measure_peak(hardware.device, hardware.compute_dtype)
        bandwidth = measure_bandwidth(hardware.device)
        opened = job.plan.open(job, Tokenizer.load(job.spec.tokenizer))
        metrics = MetricsFile(folder / "metrics.jsonl")
        metrics.cut()
        run = RunContext(
            folder, job.spec.steps, job.spec.batch_size_tokens, job.spec.compute / job.spec.tokens, peak, 0,
            StopSignal(), metrics, opened.steps_per_epoch,
        )  # fmt: skip
        callbacks = [one for one in build_callbacks(job, run) if not isinstance(one, _NOT_OF_A_STEP)]
        trainer = build_trainer(job, opened, [*callbacks, PreparedBlocks(job), profile], [metrics], profiler=profiler)
        torch.manual_seed(job.spec.seed)
        try:
            trainer.fit(opened.module, datamodule=opened.data)
        finally:
            metrics.close()
    if not profile.operators.memory:
        raise StageError(f"{job.name}: the steps ended before they were measured.", "Leave out what stops the Trainer.")
    operators = profile.operators
    costs = [
        OperatorCost(name, operators.calls[name], seconds, operators.flops[name], operators.bytes[name])
        for name, seconds in sorted(operators.seconds.items(), key=lambda row: -row[1])
    ]
    return Profile(
        run=job.name, objective=job.spec.objective, device=describe_device(hardware.device, hardware.threads),
        precision=hardware.precision, steps=profile.num_steps, tokens=job.spec.batch_size_tokens,
        passes=opened.accumulate, flops=job.spec.compute / job.spec.steps, peak=peak, bandwidth=bandwidth,
        phases=profile.phases, parts=profile.parts, memory=operators.memory, top=profile.top[:20], operators=costs,
    )  # fmt: skip


def describe_device(device: torch.device, threads: int) -> str:
    """The name of a GPU, or of the processor and how many threads are used."""
    from maquette.tracking.environment import processor_name

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}"
