"""What every workload does alike when it puts a run together."""

from collections.abc import Mapping

from torch import Tensor, nn

from maquette.artifacts.progress import say
from maquette.objectives import Optimization
from maquette.optimization import build_schedule
from maquette.training.compilation import compile_blocks, compiler_works
from maquette.training.job import Job


def prepare_optimization(job: Job) -> Optimization:
    """How the job's weights move."""
    return Optimization(
        config=job.optimizer,
        schedule=build_schedule(job.schedule, job.tokens, job.warmup),
        learning_rate=job.learning_rate,
        weight_decay=job.weight_decay,
        batch_size_tokens=job.batch_size_tokens,
        fused=False if job.hardware.precision == "16-mixed" else None,
        parametrization=job.parametrization,
    )


def prepare_speed(job: Job, core: nn.Module) -> None:
    """Compiles a core's layers where the run was begun compiled and still can be."""
    if job.compiled and compiler_works(say):
        compile_blocks(core)


def module_weights(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one part of an objective by the part's own names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
