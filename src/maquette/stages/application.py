"""A stage as a Hydra application: what `@hydra.main` calls with the composed config, in whichever process that is."""

import contextlib
import os
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from maquette.stages import Stage
from maquette.stages.composition import register_schema, to_settings
from maquette.stages.folders import config_folders
from maquette.stages.foreign import search_beside


class Application:
    """Called with a config it checks it, runs the stage, and returns the number that a sweeper may minimise: a run's
    validation loss. `dry`: it prints the settings, or what a sweep would run, and runs nothing. `sweep`: what our
    sweeper has to say of the sweep that it ran."""

    def __init__(self, stage: Stage, *, dry: bool = False) -> None:
        self.stage, self.dry = stage, dry
        self.__module__ = f"maquette.stages.{stage.module}"  # which Hydra names the job after
        self.sweep: Any = None

    def __call__(self, config: DictConfig) -> float | str | None:
        register_schema(self.stage.name)
        context = HydraConfig.get()
        for source in context.runtime.config_sources:
            if source.provider == "command-line" and source.schema == "file":
                search_beside(Path(source.path))
        settings = to_settings(self.stage, config, context.overrides.task)
        if self.dry:
            print(OmegaConf.to_yaml(config, resolve=True), end="")
            return None
        result = self.stage.run(settings)
        if context.output_subdir is not None:
            link_result(Path(context.runtime.output_dir), result)
        return metric_of(result)

    def main(self) -> None:
        """Hydra's own entry point: reads `sys.argv`, composes, and calls the application, once or in a sweep."""
        register_schema(self.stage.name)
        hydra.main(version_base="1.3", config_path=str(config_folders()[0]), config_name=self.stage.name)(self)()


def metric_of(result: Any) -> float | str | None:
    """A run's validation loss; of other results what can be printed."""
    loss = getattr(result, "validation_loss", None)
    if isinstance(loss, float):
        return loss
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
