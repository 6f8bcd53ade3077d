"""`maquette fit`: laws from a sweep in MLflow, or from anybody's table."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import say
from maquette.cli.command_line.law_config import FitStage
from maquette.scaling.fits.question import FitQuestion
from maquette.scaling.fits.stored_fit import load_fit, show_fit

if TYPE_CHECKING:
    from maquette.scaling.fits.mixture_fit import MixtureFit
    from maquette.scaling.fits.table import RunTable


def run(config: FitStage) -> Path:
    """Fits what is asked for and returns the artifact's folder. Prints what a person wants to know of it."""
    folder = question(config).answer(
        force=config.force, train=lambda table, mixture: train_mixture(config, table, mixture)
    )
    show_fit(folder, as_json=config.json)
    if config.suggest:
        from maquette.cli.planning.family import family_words
        from maquette.scaling.fits.next_run import show_suggestions

        fit, _ = load_fit(folder)
        target = {name: getattr(config, name) for name in ("size", "tokens", "compute", "affordable")}
        show_suggestions(fit, config.suggest, family_words(fit.table.folders, config.outputs), **target)
    return folder


def question(config: FitStage) -> FitQuestion:
    """What the settings ask, and of which runs."""
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("json", "force")}
    return FitQuestion(settings, config.tracking)


def train_mixture(config: FitStage, table: "RunTable", result: "MixtureFit") -> float:
    """Mean held-out loss over the targets of a run with the optimum's weights; nothing is trained where it is done."""
    from maquette.cli import train
    from maquette.cli.planning.family import settings_of_folder

    if table.folders is None:
        raise StageError(f"{table.source} does not say where its runs are.", "Verify where the sweep was trained.")
    member = settings_of_folder(table.folders[0], config.outputs)
    mixture = dataclasses.replace(member.mixture, weights=result.mixture)
    member = dataclasses.replace(member, outputs=config.outputs, mixture=mixture)
    say("training the best mixture")
    record = train.run(member.tracked(dataclasses.replace(config.tracking, parent=None, run_name=None)))
    weights = zip(result.domains, result.targets, strict=True)
    return sum(record.domains[name]["loss"] * weight for name, weight in weights)
