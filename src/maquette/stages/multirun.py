"""`-m`: one run for each combination of the values given, through Hydra's sweeper and launchers.

All jobs are composed and checked before the first one starts. A job that fails is reported and does not take the
others with it; a job that is already done says so, so that typing the line again continues an interrupted sweep.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.progress import say
from maquette.stages import Stage
from maquette.stages.composition import compose, compose_raw, opened, parse_overrides, register_schemas
from maquette.stages.folders import config_folders

_QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null", "hydra.job.chdir=false"]


def jobs(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> list[list[str]]:
    """The overrides of every job of a sweep, those of `hydra.sweeper.params` (a `+sweep=` file) included."""
    parsed = parse_overrides(overrides)
    fixed = [text for text, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]
    composed = compose_raw(stage, fixed, config_folder, hydra=True)
    params = composed.hydra.sweeper.get("params") or {}
    given = {override.key_or_group for override in parsed}
    swept = [f"{key}={value}" for key, value in params.items() if key not in given]
    batches = BasicSweeper.split_arguments(parse_overrides([*swept, *overrides]), None)
    return [list(job) for batch in batches for job in batch]


def multirun(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None) -> int:
    """Runs a sweep; returns 0 when every job went well, else the exit code of the last that did not."""
    planned = jobs(stage, overrides, config_folder)
    settings = [compose(stage, job, config_folder) for job in planned]
    if not planned:
        raise ConfigError("the sweep has no jobs.", "Give a key several values: size=100k,300k.")
    say(f"{len(planned)} jobs of maquette {stage.name}")
    failures: list[tuple[list[str], int]] = []

    def task(_: DictConfig) -> Any:
        number = int(HydraConfig.get().job.num) + 1
        job = [word for word in planned[number - 1] if not word.startswith("hydra")]
        say(f"[{number}/{len(planned)}] {' '.join(job)}")
        try:
            return stage.run(settings[number - 1])
        except MaquetteError as error:
            failures.append((job, error.exit_code))
            say(f"[{number}/{len(planned)}] failed: {error}")
            return None

    register_schemas()
    folder = f"hydra.sweep.dir={settings[0].outputs}/sweeps/" + "${now:%Y-%m-%d_%H-%M-%S}"
    search = [f"hydra.searchpath=[file://{config_folder}]"] if config_folder else []
    with _arguments(["-m", *search, *_QUIET, folder, *opened(stage, overrides)]):
        hydra.main(version_base="1.3", config_path=str(config_folders()[0]), config_name=stage.name)(task)()
    for job, _ in failures:
        say(f"failed: {' '.join(job)}")
    say(f"{len(planned) - len(failures)} of {len(planned)} jobs done")
    return failures[-1][1] if failures else 0


@contextlib.contextmanager
def _arguments(words: list[str]) -> Any:
    """Hydra reads its command line from `sys.argv`."""
    before, sys.argv = sys.argv, ["maquette", *words]
    try:
        yield
    finally:
        sys.argv = before
