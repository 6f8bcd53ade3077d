"""What every plan does alike when it puts a run together."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maquette.model.architecture import describe_architecture
from maquette.objectives import Optimization
from maquette.training.job import Job


def prepare_optimization(job: Job) -> Optimization:
    """How the job's weights move."""
    return Optimization(
        optimizer=job.optimizer,
        scheduler=job.scheduler,
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        steps=job.steps,
        batch_size_tokens=job.batch_size_tokens,
        warmup=job.warmup,
        fused=False if job.hardware.precision == "16-mixed" else None,
        parametrization=job.parametrization,
    )


def describe_run_model(job: Job, tokenizer_digest: str | None = None) -> dict[str, Any]:
    """The description of the job's initial model; see `maquette.model.loading`."""
    return {
        "architecture": describe_architecture(job.architecture),
        "seed": job.seed,
        "parametrization": dataclasses.asdict(job.parametrization),
        "checkpoint": None if job.checkpoint is None else str(job.checkpoint),
        "tokenizer_digest": tokenizer_digest,
    }


def module_weights(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one part of an objective by the part's own names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
