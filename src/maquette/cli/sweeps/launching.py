"""How the jobs of a sweep are run: by which of Hydra's launchers, in how many processes of how many threads.

Narrow models train no faster on two threads than on one (training/devices.py), so cores are shared out among jobs: by
default a process for each core, as soon as all jobs together take longer than the imports of further processes.
`hydra/launcher=basic` runs one job after another in this process; benchmarks/sweep_launchers.py measures both.
"""

import contextlib
import importlib.util
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import write_text
from maquette.cli.sweeps.work import Files

_IMPORTS = 10.0
"""Seconds that a worker process spends before its first job."""

_LOCAL = ("joblib", "submitit_local")
_PACKAGES = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}


@dataclass(frozen=True)
class Launching:
    """`arguments`: Hydra's, beyond what was typed. `slots`: jobs at once on this machine, None where a scheduler does
    that; `threads` of each, None where the stage decides; `batch`: jobs that the launcher is given at once, None for
    all. `why`, in words."""

    launcher: str
    arguments: tuple[str, ...]
    slots: int | None
    threads: int | None
    why: str
    batch: int | None = None


def choose_launching(
    overrides: Sequence[str],
    *,
    jobs: int,
    seconds: float,
    threads: int | None,
    cores: int,
    accelerated: bool = False,
    gpus: int = 1,
    processes: int = 1,
) -> Launching:
    """By what was typed, else by what is fastest here.

    `seconds`: what all jobs take one after another (nan: unknown); `threads`: of a job, None for one that trains
    nothing; `cores`: of this machine that may be used; `accelerated`: jobs use GPUs, of which there are `gpus`;
    `processes`: of a job, each with its threads and, if accelerated, a GPU of its own.
    Raises `ConfigError` for a launcher that is not installed.
    """
    typed = next((text.partition("=")[2] for text in reversed(overrides) if text.startswith("hydra/launcher=")), None)
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    each = min(threads or 1, cores)
    slots = max(1, min(jobs, (gpus if accelerated else cores // each) // processes))
    batch = None
    if typed is None:
        worth = threads is not None and slots > 1 and seconds > 2 * _IMPORTS and _is_installed("joblib")
        typed = "joblib" if worth else "basic"
        why = (
            f"{slots} processes, {_threads(each)} each (hydra/launcher=joblib)"
            if worth
            else f"one job at a time{f', {_threads(each)}' if threads else ''} (hydra/launcher=basic)"
        )
        arguments = [f"hydra/launcher={typed}"]
    else:
        arguments, why = [], f"hydra/launcher={typed}"
        if typed in _PACKAGES and not _is_installed(typed):
            raise ConfigError(
                f"hydra/launcher={typed} is not installed.", "pip install 'maquette-lm[sweeps]' brings the launchers."
            )
        if typed in _LOCAL:
            why += f": {slots} at a time, {_threads(each)} each"
    if typed == "joblib" and "hydra.launcher.n_jobs" not in given:
        arguments.append(f"hydra.launcher.n_jobs={slots}")
    if typed == "submitit_local" and "hydra.sweeper.max_batch_size" not in given:
        batch = slots  # it starts all that it is given at once
    if typed == "submitit_local" and "hydra.launcher.timeout_min" not in given:
        arguments.append("hydra.launcher.timeout_min=10080")
    if typed == "submitit_slurm" and "hydra.launcher.max_num_timeout" not in given:
        arguments.append("hydra.launcher.max_num_timeout=20")  # a job that runs out of time resumes from its checkpoint
    return Launching(
        typed,
        tuple(arguments),
        slots=slots if typed in _LOCAL else None,
        threads=each if threads is not None and typed in ("basic", *_LOCAL) else None,
        why=why,
        batch=batch,
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _is_installed(launcher: str) -> bool:
    return importlib.util.find_spec(f"hydra_plugins.hydra_{_PACKAGES[launcher]}_launcher") is not None


@contextlib.contextmanager
def stopping_gently(files: Files) -> Iterator[list[int]]:
    """While workers run the jobs, Ctrl-C and SIGTERM let those that run save themselves, and no other begin.

    Yields the list of signals heard; a second Ctrl-C, a second later, stops at once.
    """
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if heard and number == signal.SIGINT:
            raise KeyboardInterrupt
        heard.append(number)
        write_text(files.stop, "")
        for job in files.in_progress().values():  # a terminal's Ctrl-C reaches them too; a request twice is one
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(job["process"], signal.SIGTERM)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
