"""The processes that train one run together: which of them this one is, and what they tell each other.

torchrun, `srun` and `maquette.training.processes.launch` say it in the environment. Free of torch until it is used.
"""

import datetime
import os
from dataclasses import dataclass
from typing import Any

PATIENCE = datetime.timedelta(minutes=60)
"""How long a process waits for another, which may be reading, validating or saving."""


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


def join_group(backend: str) -> None:
    """Meets the other processes, before Lightning does, so that they can agree on what to do."""
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if backend == "nccl":  # objects travel over the current device, which would be the first one for everybody
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend, timeout=PATIENCE)


def agree(value: Any) -> Any:
    """What the first process says, in every process of the group."""
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sum_of_all_processes(values: Any) -> Any:
    """The sum over all processes of a tensor of one shape, in every process."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def of_all_processes(value: Any) -> list[Any]:
    """Every process's value, in the order of ranks."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
