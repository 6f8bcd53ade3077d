"""The GPUs of this machine: one job on each at a time, and the number format that training has on them by default.

Without locks, jobs that a launcher starts side by side would all train on device 0. Those that a scheduler has given
their devices, and those that take all there are (or a list of them), are left alone. Free of torch where no GPU is
asked for.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from maquette.artifacts.progress import say

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOOK = 0.5
_held: "list[BaseFileLock]" = []
"""This process's locks. It keeps its devices until it ends: CUDA can't change to others."""


def take_gpu(settings: Any) -> str | None:
    """Waits for as many free devices as the settings want, and makes them the only ones this process sees; returns
    their ids (`"3"`, `"1,2"`). None where there is nothing to choose."""
    trainer = getattr(settings, "trainer", None)
    if trainer is None or trainer.accelerator == "cpu":
        return None
    if _held or "SLURM_JOB_ID" in os.environ or "LOCAL_RANK" in os.environ or _cuda_is_in_use():
        return None
    devices = visible_gpus()
    wanted = str(trainer.devices)
    if wanted in ("auto", "-1") and len(devices) == 1:
        wanted = "1"
    if not wanted.isdigit() or not 0 < int(wanted) <= len(devices):
        return None
    taken = ",".join(_first_free(devices, int(wanted)))
    os.environ["CUDA_VISIBLE_DEVICES"] = taken
    return taken


def are_elsewhere(trainer: Any) -> bool:
    """Whether the settings want GPUs, and this is a machine without any from which Slurm jobs are sent to others."""
    wanted = trainer.accelerator in ("gpu", "cuda")
    return wanted and not visible_gpus() and "SLURM_JOB_ID" not in os.environ and shutil.which("sbatch") is not None


def visible_gpus() -> list[str]:
    """The ids of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one.strip() for one in visible.split(",") if one.strip() and one.strip() != "-1"]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(number) for number, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU ")]


def _first_free(devices: list[str], count: int) -> list[str]:
    """Locks the first `count` that nobody holds: all of them or, until there are so many, none."""
    from filelock import FileLock, Timeout

    announced = False
    while True:
        locks: dict[str, BaseFileLock] = {}
        for device in devices:
            lock: BaseFileLock = FileLock(Path(tempfile.gettempdir()) / f"maquette-gpu-{device.replace('/', '_')}.lock")
            with contextlib.suppress(Timeout, OSError):
                lock.acquire(blocking=False)
                locks[device] = lock
            if len(locks) == count:
                _held.extend(locks.values())
                return list(locks)
        for lock in locks.values():
            lock.release()
        if not announced:
            say(f"waiting for {'a GPU' if count == 1 else f'{count} GPUs'}: of {', '.join(devices)} other runs use "
                f"{'all' if not locks else 'too many'}")  # fmt: skip
            announced = True
        time.sleep(_LOOK)


def _cuda_is_in_use() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def register_default_precision() -> None:
    """Makes `${default_precision:ACCELERATOR,LIGHTNINGS_NAME}` known to OmegaConf: `conf/precision/auto.yaml`."""
    OmegaConf.register_new_resolver("default_precision", _default_precision, replace=True)


def _default_precision(accelerator: str, explicit: Any) -> str:
    """bf16-mixed on a GPU: in float32 it does a fifteenth of its work or less, and without FlashAttention. float32 on
    a processor, and where `trainer.precision` says it all."""
    if explicit is not None or accelerator == "cpu":
        return "fp32"
    if accelerator == "auto":
        if not visible_gpus():
            return "fp32"
        import torch

        return "bf16-mixed" if torch.cuda.is_available() else "fp32"
    return "bf16-mixed"
