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
from pathlib import Path
from types import FrameType

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import write_text
from maquette.stages import Stage
from maquette.stages.composition import hydra_apart, register_schema
from maquette.stages.folders import config_folders
from maquette.stages.overrides import hydra_overrides
from maquette.stages.sweeps.work import Files, Work

_IMPORTS = 10.0
"""Seconds that a worker process spends before its first job."""

_QUIET = [
    "hydra/sweeper=basic",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.output_subdir=null",
    "hydra.job.chdir=false",
]
_LOCAL = ("joblib", "submitit_local")
_PACKAGES = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}


@dataclass(frozen=True)
class Launching:
    """`words`: Hydra's, beyond what was typed. `slots`: jobs at once on this machine, None where a scheduler sees to
    that; `threads` of each, None where the stage decides. `why`, in words."""

    launcher: str
    words: tuple[str, ...]
    slots: int | None
    threads: int | None
    why: str


def choose_launching(
    overrides: Sequence[str], *, jobs: int, seconds: float, threads: int | None, cores: int, accelerated: bool = False
) -> Launching:
    """By what was typed, else by what is fastest here.

    `seconds`: what all jobs take one after another (nan: unknown); `threads`: of a job, None for one that trains
    nothing; `cores`: of this machine that may be used; `accelerated`: jobs use a GPU. Raises `ConfigError` for a
    launcher that is not installed.
    """
    typed = next((text.partition("=")[2] for text in reversed(overrides) if text.startswith("hydra/launcher=")), None)
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    each = min(threads or 1, cores)
    slots = 1 if accelerated else max(1, min(jobs, cores // each))
    if typed is None:
        worth = threads is not None and slots > 1 and seconds > 2 * _IMPORTS and _is_installed("joblib")
        typed = "joblib" if worth else "basic"
        why = (
            f"{slots} processes, {_threads(each)} each (hydra/launcher=joblib)"
            if worth
            else f"one job at a time{f', {_threads(each)}' if threads else ''} (hydra/launcher=basic)"
        )
        words = [f"hydra/launcher={typed}"]
    else:
        words, why = [], f"hydra/launcher={typed}"
        if typed in _PACKAGES and not _is_installed(typed):
            raise ConfigError(
                f"hydra/launcher={typed} is not installed.", "pip install 'maquette-lm[sweeps]' brings the launchers."
            )
        if typed in _LOCAL:
            why += f": {slots} at a time, {_threads(each)} each"
    if typed == "joblib" and "hydra.launcher.n_jobs" not in given:
        words.append(f"hydra.launcher.n_jobs={slots}")
    if typed == "submitit_local" and "hydra.launcher.timeout_min" not in given:
        words.append("hydra.launcher.timeout_min=10080")  # waiting for a slot counts
    if typed == "submitit_slurm" and "hydra.launcher.max_num_timeout" not in given:
        words.append("hydra.launcher.max_num_timeout=20")  # a job that runs out of time goes on from its checkpoint
    return Launching(
        typed,
        tuple(words),
        slots=slots if typed in _LOCAL else None,
        threads=each if threads is not None and typed in ("basic", *_LOCAL) else None,
        why=why,
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _is_installed(launcher: str) -> bool:
    return importlib.util.find_spec(f"hydra_plugins.hydra_{_PACKAGES[launcher]}_launcher") is not None


def launch(
    stage: Stage, work: Work, hydra_words: Sequence[str], place: Path, config_folder: Path | None = None
) -> None:
    """Runs `work` through Hydra's launcher; returns when all jobs have ended. `place`: the sweep's folder.

    Hydra's sweepers make products; the list of jobs is known already, so the launcher is given it directly. Raises what
    the launcher raises (a worker process that died), and `KeyboardInterrupt`.
    """
    register_schema(stage.name)
    jobs = [hydra_overrides(stage, work.sweep.jobs[number].overrides) for number in work.order]
    jobs = [[word for word in job if not word.startswith("hydra")] for job in jobs]
    search = [f"hydra.searchpath=[file://{config_folder}]"] if config_folder else []
    where = [f"hydra.sweep.dir={place.absolute()}", "hydra.sweep.subdir=."]

    def task(_: DictConfig) -> None:
        work.run(int(HydraConfig.get().job.num))

    with (
        hydra_apart(),
        initialize_config_dir(version_base="1.3", config_dir=str(config_folders()[0]), job_name=stage.name),
    ):
        engine = GlobalHydra.instance().hydra
        assert engine is not None
        config = engine.compose_config(stage.name, [*search, *_QUIET, *where, *hydra_words], RunMode.MULTIRUN)
        context = HydraContext(config_loader=engine.config_loader, callbacks=Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(context, task, config)
        launcher.launch(jobs, initial_job_idx=0)


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
        for told in files.in_progress().values():  # a terminal's Ctrl-C reaches them too; a request twice is one
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(told["process"], signal.SIGTERM)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hydra_words(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> list[str]:
    """What was typed for Hydra itself, such as its launcher's settings."""
    return [text for text in hydra_overrides(stage, overrides, config_folder) if text.lstrip("+~").startswith("hydra")]
