"""On what a run runs: devices, processes, threads and number format, checked before anything is built."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from maquette.artifacts import ConfigError
from maquette.artifacts.process_state import process_state_kept
from maquette.data.process_group import default_threads, local_gpu, process_group
from maquette.model.core_config import CoreConfig
from maquette.model.expert_parallel import check_expert_parallel
from maquette.model.linear import current_backend, use_backend
from maquette.model.tensor_parallel import check_tensor_parallel
from maquette.training.config import PrecisionConfig, TrainerConfig

_LIGHTNING_PRECISION = {
    "fp32": "32-true",
    "tf32": "32-true",
    "bf16-mixed": "bf16-mixed",
    "bf16-true": "bf16-true",
    "16-mixed": "16-mixed",
}


@dataclass(frozen=True)
class Hardware:
    """`accelerator`: cpu or cuda; `processes` on each of `nodes` machines, one for each device. `min_passes`: forward
    passes that a step is split into at least, where its settings leave that open: fewer did not fit.
    `tensor_parallel_size`: processes that read the same batch, over which each matrix is cut up;
    `expert_parallel_size`: those over which experts are divided."""

    accelerator: str
    processes: int
    nodes: int
    strategy: str
    threads: int
    precision: str
    min_passes: int = 1
    tensor_parallel_size: int = 1
    expert_parallel_size: int = 1

    @property
    def world_size(self) -> int:
        return self.processes * self.nodes

    @property
    def data_parts(self) -> int:
        """Into how many parts a batch is divided: one for each process, or group of those that read the same."""
        return self.world_size // self.tensor_parallel_size

    @property
    def lightning_precision(self) -> str:
        return _LIGHTNING_PRECISION[self.precision]

    @property
    def compute_dtype(self) -> torch.dtype:
        """The number format of matrix products."""
        return {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}.get(
            self.precision, torch.float32
        )

    @property
    def backend(self) -> str:
        """By what processes speak to each other."""
        return "gloo" if self.accelerator == "cpu" else "nccl"

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        if self.accelerator == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", local_gpu())


def choose_hardware(
    trainer: TrainerConfig,
    precision: PrecisionConfig,
    *,
    threads: int | None = None,
    width: int | None = None,
    tensor_parallel_size: int = 1,
    expert_parallel_size: int = 1,
) -> Hardware:
    """What the settings ask for, on this machine, for a model that is `width` wide. The sizes are `Hardware`'s.

    Raises `ConfigError` where it can't be, or makes no sense.
    """
    count = _count_gpus(trainer)
    gpu = trainer.accelerator in ("gpu", "cuda")
    accelerator = "cuda" if gpu or (trainer.accelerator == "auto" and count) else "cpu"
    devices = count_devices(trainer.devices, count if accelerator == "cuda" else 1)
    if accelerator == "cuda" and count < devices:
        raise ConfigError(
            f"trainer.accelerator={trainer.accelerator} with trainer.devices={trainer.devices}: "
            f"PyTorch finds {count} GPUs here.",
            "Use trainer=cpu, or set trainer.devices to what is there.",
        )
    strategy = _strategy(trainer, devices * trainer.num_nodes)
    sizes = {"tensor_parallel_size": tensor_parallel_size, "expert_parallel_size": expert_parallel_size}
    for key, size in sizes.items():
        if devices % size:
            allowed = ", ".join(str(one) for one in range(1, devices + 1) if devices % one == 0)
            raise ConfigError(
                f"{key}={size} does not divide the {devices} devices of a machine (trainer.devices).",
                f"Allowed with them: {allowed}.",
            )
    number_format = choose_precision(trainer, precision)
    if strategy == "fsdp" and number_format == "16-mixed":
        raise ConfigError(
            "precision=16-mixed scales losses, which trainer.strategy=fsdp does not do.", "Use precision=bf16-mixed."
        )
    if number_format == "16-mixed" and accelerator == "cpu":
        raise ConfigError(
            "precision=16-mixed needs a GPU: a processor would silently compute in bf16 instead.",
            "Use precision=bf16-mixed or precision=fp32.",
        )
    threads = threads or default_threads(devices, width)
    return Hardware(accelerator, devices, trainer.num_nodes, strategy, threads, number_format, **sizes)


def check_sharing(
    architecture: CoreConfig,
    *,
    tensor_parallel_size: int,
    expert_parallel_size: int,
    strategy: str,
    adapter: bool,
    compile: str,
    policy: bool,
) -> None:
    """Raises `ConfigError` where matrices can't be cut up or experts divided over so many processes, or something else
    that is asked for does not go with it. `policy`: rollouts are made."""
    if strategy == "fsdp" and policy and adapter:
        raise ConfigError(
            "A policy's adapter is not trained with trainer.strategy=fsdp: no test has run it.",
            "Use trainer=ddp: the frozen weights have neither gradients nor optimiser states.",
        )
    tensor, experts = tensor_parallel_size, expert_parallel_size
    if tensor == experts == 1:
        return
    setting = f"tensor_parallel_size={tensor}" if tensor > 1 else f"expert_parallel_size={experts}"
    if strategy != "fsdp":
        raise ConfigError(f"{setting} is a part of trainer.strategy=fsdp, not of {strategy}.", "Use trainer=fsdp.")
    if tensor > 1 and experts > 1:
        raise ConfigError(f"{setting} and expert_parallel_size={experts} do not go together.", "Leave one of them out.")
    for there, what in ((policy, "a policy's rollouts"), (adapter, "adapter="), (compile == "on", "compile=on")):
        if there:
            raise ConfigError(f"{setting} does not go with {what}: no test has run it.", "Leave one of them out.")
    if tensor > 1:
        check_tensor_parallel(architecture, tensor)
    else:
        check_expert_parallel(architecture, experts)


def count_devices(devices: Any, available: int) -> int:
    """How many processes `trainer.devices` means: a number, a list of devices, or auto (-1) for all that are there.

    Raises `ConfigError` for anything else."""
    if devices in ("auto", -1, "-1"):
        return max(1, available)
    if isinstance(devices, list | tuple):
        return len(devices)
    try:
        count = int(devices)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ConfigError(f"trainer.devices={devices} is not a number of devices.", "Give a number, a list, or auto.")
    return count


def count_processes(trainer: TrainerConfig, tensor: int = 1) -> int:
    """Of the whole run, over all machines; of `tensor` that read the same batch one."""
    available = _count_gpus(trainer) if trainer.accelerator != "cpu" else 1
    return max(1, count_devices(trainer.devices, max(1, available)) * trainer.num_nodes // tensor)


def _count_gpus(trainer: TrainerConfig) -> int:
    """Of this machine. srun may show each of its tasks one alone (`--gpus-per-task=1`): then there are as many as
    tasks."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return max(count, process_group().size // trainer.num_nodes) if count == 1 else count


def _strategy(trainer: TrainerConfig, processes: int) -> str:
    known = ("auto", "single", "ddp", "fsdp")
    if trainer.strategy not in known:
        raise ConfigError(f"trainer.strategy={trainer.strategy} is not known.", "Allowed: auto, ddp, fsdp.")
    if trainer.strategy == "single" and processes > 1:
        raise ConfigError(
            f"trainer.strategy=single uses one device, not {processes}.", "Use trainer=ddp or trainer=fsdp for several."
        )
    if processes == 1:
        return "single"
    if trainer.strategy == "auto":
        return "ddp"
    return str(trainer.strategy)


_KINDS = {
    "32": "fp32", "32-true": "fp32", "bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed", "bf16-true": "bf16-true",
    "16": "16-mixed", "16-mixed": "16-mixed",
}  # fmt: skip


def choose_precision(trainer: TrainerConfig, precision: PrecisionConfig) -> str:
    """The number format of training: Lightning's name in `trainer.precision`, where it is given, wins over
    `precision=`. Raises `ConfigError` where it is not known, or both are given and differ."""
    if trainer.precision is None:
        return precision.kind
    kind = _KINDS.get(str(trainer.precision))
    if kind is None:
        raise ConfigError(f"trainer.precision={trainer.precision} is not known.", f"Allowed: {', '.join(_KINDS)}.")
    if precision.kind not in (kind, PrecisionConfig().kind):
        raise ConfigError(
            f"trainer.precision={trainer.precision} and precision={precision.kind} are two number formats.",
            "Leave one of them out.",
        )
    return kind


@contextlib.contextmanager
def threads_for(width: int) -> Iterator[None]:
    """Within the block a model of this width is computed by no more threads than it is trained with: a second one waits
    for the first, and on a busy machine long."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, default_threads(1, width)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def prepared_process(hardware: Hardware, linear_backend: str = "torch") -> Iterator[None]:
    """Within the block PyTorch has for the whole process what a job says: threads, whether products of float32 may use
    TF32, and what multiplies matrices. Afterwards the process is as it was, whatever Lightning has set too: models that
    are evaluated next must give the numbers that they give in a process of their own."""
    before = current_backend()
    with process_state_kept():
        torch.set_num_threads(hardware.threads)
        torch.set_float32_matmul_precision("high" if hardware.precision == "tf32" else "highest")
        use_backend(linear_backend)
        try:
            yield
        finally:
            use_backend(before)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # <malloc.h>


def keep_large_buffers() -> None:
    """From now on this process takes large buffers from its own heap, and does not give the heap's end back.

    By default glibc gives every large buffer (logits, activations) back to the system when it is freed, and asks
    for it again, page by page, in the next step: 12 to 16% of the time of a step at a million parameters.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
