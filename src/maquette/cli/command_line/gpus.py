"""One job on a GPU at a time: a run on a single device takes the first that no other run of this machine holds.

Without this, jobs that a launcher starts side by side would all train on device 0. Runs on several devices, and those
that a scheduler has given their devices, are left alone.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.progress import say

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LOOK = 0.5
_held: "list[BaseFileLock]" = []
"""This process's lock. It keeps its device until it ends: CUDA can't change to another one."""


def take_gpu(settings: Any) -> str | None:
    """Waits for a free device if the settings want one GPU, and makes it the only one this process sees; returns its
    id. None where there is nothing to choose."""
    trainer = getattr(settings, "trainer", None)
    if trainer is None or trainer.accelerator not in ("gpu", "cuda") or str(trainer.devices) not in ("1", "auto"):
        return None
    if _held or "SLURM_JOB_ID" in os.environ or "LOCAL_RANK" in os.environ or _cuda_is_in_use():
        return None
    devices = visible_gpus()
    if not devices or (str(trainer.devices) == "auto" and len(devices) > 1):
        return None
    device = _first_free(devices)
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    return device


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


def _first_free(devices: list[str]) -> str:
    from filelock import FileLock, Timeout

    announced = False
    while True:
        for device in devices:
            lock = FileLock(Path(tempfile.gettempdir()) / f"maquette-gpu-{device.replace('/', '_')}.lock")
            with contextlib.suppress(Timeout, OSError):
                lock.acquire(blocking=False)
                _held.append(lock)
                return device
        if not announced:
            say(f"waiting for a GPU: {', '.join(devices)} {'is' if len(devices) == 1 else 'are'} in use by other runs")
            announced = True
        time.sleep(_LOOK)


def _cuda_is_in_use() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
