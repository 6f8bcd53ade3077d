"""`-m` from Python: what the command line's `-m` does, for stages that begin with a sweep (the demo) and for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from maquette.stages import Stage
from maquette.stages.application import Application
from maquette.stages.config_errors import explained
from maquette.stages.overrides import hydra_overrides

if TYPE_CHECKING:
    from maquette.stages.sweeps.running import Report


def multirun(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None, *, show: bool = False) -> int:
    """Runs a sweep; returns 0 when every job went well, else the exit code of the last that did not.

    `show`: prints what it would run and cost, and runs nothing.
    """
    return sweep(stage, overrides, config_folder, show=show).exit_code


def sweep(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None, *, show: bool = False) -> "Report":
    """The same, and what became of it."""
    options = ["-m", *([f"--config-dir={config_folder}"] if config_folder else [])]
    application = Application(stage, dry=show)
    try:
        application.main(options, hydra_overrides(stage, overrides, config_folder))
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(stage, error) from None
    report: Report = application.sweep
    return report
