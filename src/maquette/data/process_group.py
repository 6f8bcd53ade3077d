"""The processes that train one run together: which of them this one is, its threads, and what they tell each other.

torchrun, `srun` and `maquette.training.processes.launch` say it in the environment. Free of torch until it is used.
"""

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from maquette.artifacts.errors import MaquetteError, PeerError

T = TypeVar("T")

PATIENCE = datetime.timedelta(minutes=60)
"""How long a process waits for another in a collective of training, which may be validating or saving."""

_WORK = datetime.timedelta(days=7)
"""How long the others wait for what one process does for all: encoding a corpus, checking the tokens. A process that
dies closes its connections, so that nobody waits for it."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process's `rank` among the `size` processes of the run."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def process_group() -> ProcessGroup:
    """From the environment. Several tasks of one Slurm step get torchrun's names for what Slurm tells them."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if "RANK" not in os.environ and tasks > 1:
        from lightning.fabric.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment(auto_requeue=False)
        os.environ.update(
            RANK=str(slurm.global_rank()),
            LOCAL_RANK=str(slurm.local_rank()),
            GROUP_RANK=str(slurm.node_rank()),
            WORLD_SIZE=str(tasks),
            MASTER_ADDR=slurm.main_address,
            MASTER_PORT=str(slurm.main_port),
        )
    return ProcessGroup(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


NARROW = 192
"""Below this width the products are too small to share: on two idle cores a second thread gains nothing, and on busy
ones it more than halves the speed (72 wide: 14,100 tokens/s by one thread, 6,000 by two)."""


def default_threads(processes: int, width: int | None = None) -> int:
    """`OMP_NUM_THREADS` where it is set, else one for a narrow model and a share of the cores for others: what srun has
    given a task (`--cpus-per-task`), or an equal one for each of the machine's `processes`."""
    variable = os.environ.get("OMP_NUM_THREADS", "")
    if variable.isdigit() and int(variable) > 0:
        return int(variable)
    if width is not None and width < NARROW:
        return 1
    own = os.environ.get("SLURM_CPUS_PER_TASK", "") if process_group().size > 1 else ""
    if own.isdigit():
        return max(1, int(own))
    return max(1, usable_cores() // processes)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_gpu(local_rank: int | None = None) -> int:
    """The GPU of a process, by default of this one, among those that it sees: one alone under `--gpus-per-task=1`."""
    import torch

    rank = int(os.environ.get("LOCAL_RANK", "0")) if local_rank is None else local_rank
    return rank % max(1, torch.cuda.device_count())


def data_place(trainer: Any) -> tuple[int, int]:
    """Which part of the data this process of a trainer reads, and of how many."""
    if trainer is None:
        return 0, 1
    own: tuple[int, int] | None = getattr(trainer.strategy, "data_place", None)
    return own or (trainer.global_rank, trainer.world_size)


def join_group(backend: str) -> None:
    """Meets the other processes, before Lightning does, so that they can agree on what to do."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if backend == "nccl":  # collectives use the current device, which would be the first one for everybody
        torch.cuda.set_device(local_gpu())
    dist.init_process_group(backend, timeout=PATIENCE)


_control: dict[Any, Any] = {}


def control_group() -> Any:
    """The group over which processes tell each other what to do: gloo between processors, so that no GPU waits for it.

    All of them have to come here together the first time."""
    import torch.distributed as dist

    world = dist.group.WORLD
    if world not in _control:
        _control.clear()
        _control[world] = dist.new_group(backend="gloo", timeout=_WORK)
    return _control[world]


def agree(value: Any) -> Any:
    """What the first process says, in every process of the group."""
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0, group=control_group())
    return box[0]


def sum_of_all_processes(values: Any) -> Any:
    """The sum over all processes of a tensor of one shape, in every process."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def of_the_first(function: Callable[[], T]) -> T:
    """What `function()` returns in the first process, in every process; the others do not call it. Where it raises,
    the others raise `PeerError`. What it returns must be picklable."""
    if not _several():
        return function()
    import torch.distributed as dist

    if dist.get_rank() > 0:
        failed, answer = agree(None)
        if failed:
            raise PeerError(*answer)
        result: T = answer
        return result
    try:
        value = function()
    except MaquetteError as error:
        agree((True, (error.message, error.hint)))
        raise
    except BaseException as error:
        agree((True, (f"{type(error).__name__} in the first process.",)))
        raise
    agree((False, value))
    return value


def of_all_processes(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks: the first process writes a checkpoint for all."""
    if not _several():
        return [value]
    import torch.distributed as dist

    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=control_group())
    return values


def _several() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
