"""A stage as a Hydra application: what `@hydra.main` calls with the composed config, in whichever process that is."""

import contextlib
import dataclasses
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from maquette.artifacts.errors import MaquetteError, without_secrets
from maquette.artifacts.files import write_text
from maquette.cli.command_line.composition import hydra_apart, register_schema, to_settings
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.data_preview import preview
from maquette.cli.command_line.foreign import search_beside
from maquette.cli.command_line.gpus import take_gpu
from maquette.cli.command_line.help import config_folders
from maquette.cli.command_line.registry import MULTIRUN, Stage


class Application:
    """Called with a config it checks it, runs the stage, and returns the number that a sweeper may minimise: a run's
    validation loss. `dry`: it prints the settings, or what a sweep would run, and runs nothing. `sweep`: what our
    sweeper has to say of the sweep that it ran."""

    def __init__(self, stage: Stage, *, dry: bool = False) -> None:
        self.stage, self.dry = stage, dry
        self.__module__ = f"maquette.cli.{stage.module}"  # which Hydra names the job after
        self.sweep: Any = None
        self._mistake: MaquetteError | None = None

    def __call__(self, config: DictConfig) -> float | str | None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return self._run(config)
        try:
            return self._run(config)
        except MaquetteError as error:  # Hydra would print all overrides before the line that explains it
            self._mistake = error
            return None

    def _run(self, config: DictConfig) -> float | str | None:
        # Importing PyTorch, Lightning and MLflow makes millions of objects that stay: with Python's own threshold of
        # 700 the search for garbage among them was a fifth of the processor time of a start.
        gc.set_threshold(50_000, 10, 10)
        register_schema(self.stage.name)
        context = HydraConfig.get()
        _without_passwords(context)
        search_beside(config_folder_of(context))
        settings = to_settings(self.stage, config, context.overrides.task, classes=not self.dry)
        if self.dry:
            predicted = getattr(settings, "prediction", None) is not None
            shown = OmegaConf.create(dataclasses.asdict(settings)) if predicted else config
            print(without_secrets(OmegaConf.to_yaml(shown, resolve=True)), end="")
            for line in preview(settings):
                print(line)
            if isinstance(settings, TrainStage):
                from maquette.cli.planning.memory import memory_lines

                for line in memory_lines(settings):
                    print(line)
            return None
        take_gpu(settings)
        if context.mode == RunMode.MULTIRUN and context.sweeper._target_ == OUR_SWEEPER:
            from maquette.cli.sweeps.work import run_job

            place = str(context.sweep.subdir)
            result = run_job(self.stage, settings, Path(context.sweep.dir), int(place.rpartition("/")[2]))
        else:
            result = self.stage.run(settings)
        if context.output_subdir is not None:
            link_result(Path(context.runtime.output_dir), result)
        return metric_of(result)

    def main(self, options: Sequence[str], overrides: Sequence[str]) -> None:
        """Hydra's own entry point: it composes, and calls the application, once or in a sweep. Raises what Hydra raises
        and what the stage raises."""
        register_schema(self.stage.name)
        run = hydra.main(version_base="1.3", config_path=str(config_folders()[0]), config_name=self.stage.name)(self)
        if self.dry and not MULTIRUN & {*options, *overrides}:
            overrides = [*overrides, "hydra/job_logging=none", "hydra.output_subdir=null", "hydra.run.dir=."]
        with hydra_apart(), _hydra_reads([*options, *overrides]):
            run()
        if self._mistake is not None:
            raise self._mistake


OUR_SWEEPER = "hydra_plugins.maquette.sweeper.MaquetteSweeper"


@contextlib.contextmanager
def _hydra_reads(arguments: Sequence[str]) -> Iterator[None]:
    """The arguments where Hydra reads them, and its errors handed on instead of printed."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["maquette", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def config_folder_of(context: Any) -> Path | None:
    """The folder given as `--config-dir`. `context`: Hydra's node."""
    sources = context.runtime.config_sources
    places = [Path(one.path) for one in sources if one.provider == "command-line" and one.schema == "file"]
    return places[0] if places else None


def _without_passwords(context: Any) -> None:
    """Takes passwords out of what Hydra has written down of this job, which a user's own YAML may hold."""
    if context.output_subdir is None:
        return
    for path in (Path(context.runtime.output_dir) / context.output_subdir).glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        if (cleaned := without_secrets(text)) != text:
            write_text(path, cleaned)


def metric_of(result: Any) -> float | str | None:
    """What a run is ranked by; of other results what can be printed."""
    metric = getattr(result, "metric", None)
    if isinstance(metric, float):
        return metric
    return None if result is None else str(getattr(result, "folder", result))


def link_result(folder: Path, result: Any) -> None:
    """Lets `result` in Hydra's folder point to the folder that the stage has made."""
    made = getattr(result, "folder", result)
    if not isinstance(made, str | Path) or not Path(made).exists():
        return
    with contextlib.suppress(OSError):  # a file system without links
        link = folder / "result"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(made, folder))
