"""`maquette fit`: laws from a sweep in MLflow, or from anybody's table."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import say
from maquette.artifacts.settings import is_dotted, parse_quantity
from maquette.cli.command_line.law_config import FitStage
from maquette.recipe.recipe_file import recipe_path, save_recipe
from maquette.scaling.fits.fit_facts import tell
from maquette.scaling.fits.question import FitQuestion
from maquette.scaling.fits.stored_fit import FACTS, LAW, PAGE, load_fit, read_facts, store_fit

if TYPE_CHECKING:
    from maquette.scaling.fits.mixture_fit import MixtureFit
    from maquette.scaling.fits.table import RunTable

_OF_A_LAW = ("laws", "compare", "convention", "level", "seed", "without")
_WITH_RECIPE = ("learning_rate", "batch")
_OF_MIXTURES = ("max_epochs", "targets", "verify")


def run(config: FitStage) -> Path:
    """Fits what is asked for and returns the artifact's folder. Prints what a person wants to know of it."""
    asked = question(config)
    for form in asked.forms:
        from maquette.scaling.laws.custom_form import custom_form

        custom_form(form)  # a mistake in it is said before the runs are read
    lost = config.laws in _WITH_RECIPE and not recipe_path(config.name or str(config.laws), config.outputs).exists()
    folder = None if config.force or lost else asked.known()
    if folder is None:
        fit = _fit_loss if config.laws is None and config.compare is None else _fit_law
        folder = fit(config, asked.read_runs())
        asked.remember(folder)
    _tell(config, folder)
    if config.suggest:
        _suggest(config, folder)
    return folder


def question(config: FitStage) -> FitQuestion:
    """What the settings ask, and of which runs."""
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("json", "force")}
    own = [form for form in (config.form, *config.forms) if form is not None and is_dotted(form)]
    return FitQuestion(
        settings, config.runs, config.outputs, config.tracking, config.convention, config.without, own, config.units
    )  # fmt: skip


def _fit_loss(config: FitStage, table: "RunTable") -> Path:
    """The artifact with the laws of the loss."""
    from maquette.scaling.fits.recorded import corpus_facts
    from maquette.scaling.fits.stored_fit import write_fit
    from maquette.scaling.fits.sweep_fit import fit_sweep

    corpus, own = corpus_facts(table, config.outputs), question(config).forms
    settings = {name: getattr(config, name) for name in ("form", "convention", "bootstrap", "level", "seed", "without")}
    if own:
        settings |= {"forms": config.forms, "code": code_digest(*own)}

    def make(folder: Path) -> dict[str, Any]:
        asked = {name: getattr(config, name) for name in ("form", "forms", "bootstrap", "seed", "level")}
        return write_fit(fit_sweep(table, corpus=corpus, **asked), folder, corpus)

    return store_fit(
        table, make, outputs=config.outputs, runs=config.runs, settings=settings, tracking=config.tracking,
        name=config.name, force=config.force,
    )  # fmt: skip


def _fit_law(config: FitStage, table: "RunTable") -> Path:
    """The artifact with another law; that of a setting also leaves a recipe in `<outputs>/recipes/`."""
    from maquette.scaling.fits import other_laws

    recipe = config.name or str(config.laws)
    if config.laws is None:
        law = other_laws.families(table, str(config.compare), level=config.level)
    elif config.laws == "repetition":
        law = other_laws.repetition_law(table, seed=config.seed, level=config.level)
    elif config.laws == "mixture":
        train = functools.partial(_train_mixture, table, config.outputs) if config.verify else None
        law = other_laws.mixture_law(table, max_epochs=config.max_epochs, targets=config.targets, train=train)
    else:
        law = other_laws.setting_law(
            table, config.laws, level=config.level, recipe=recipe, outputs=config.outputs
        )  # fmt: skip
        path = save_recipe(law.result.rules, recipe_path(recipe, config.outputs))
        say(f"recipe={recipe} is {path}")
    names = (*_OF_A_LAW, *(_OF_MIXTURES if config.laws == "mixture" else ()))
    return store_fit(
        table, lambda folder: law.write(table, folder), outputs=config.outputs, runs=config.runs,
        settings={name: getattr(config, name) for name in names}, tracking=config.tracking, label=law.label,
        name=config.name, force=config.force,
    )  # fmt: skip


def _train_mixture(table: "RunTable", outputs: str, result: "MixtureFit") -> float:
    """Mean held-out loss over the targets of a run with the optimum's weights; nothing is trained where it is done."""
    from maquette.cli import train
    from maquette.cli.planning.family import settings_of_folder

    if table.folders is None:
        raise StageError(f"{table.source} does not say where its runs are.", "Verify where the sweep was trained.")
    config = settings_of_folder(table.folders[0], outputs)
    mixture = dataclasses.replace(config.mixture, weights=result.mixture)
    config = dataclasses.replace(config, outputs=outputs, mixture=mixture)
    say("training the best mixture")
    record = train.run(config.tracked(dataclasses.replace(config.tracking, parent=None, run_name=None)))
    return sum(
        record.domains[name]["loss"] * weight for name, weight in zip(result.domains, result.targets, strict=True)
    )


def _tell(config: FitStage, folder: Path) -> None:
    of_the_loss = (folder / FACTS).exists()
    if config.json:
        print((folder / (FACTS if of_the_loss else LAW)).read_text(encoding="utf-8"))
        return
    if of_the_loss:
        tell(read_facts(folder))
    else:
        from maquette.scaling.fits.other_laws import tell_law

        tell_law(folder)
    say(f"Open {(folder / PAGE).absolute().as_uri()}")


def _suggest(config: FitStage, folder: Path) -> None:
    """Prints the affordable runs that narrow a prediction most per FLOP, as lines to type."""
    from maquette.cli.command_line.composition import words_of
    from maquette.cli.planning.family import SCALE, family_settings
    from maquette.scaling.fits.next_run import show_suggestions
    from maquette.scaling.predictions.prediction import is_local

    fit, _ = load_fit(folder)
    overrides = [] if config.outputs == "outputs" else [f"outputs={config.outputs}"]
    if fit.table.folders is not None:
        family = family_settings(fit.table.folders, config.outputs).config
        overrides = [*words_of(family, lambda key: key not in SCALE and not is_local(key)), *overrides]
    given = {name: getattr(config, name) for name in ("size", "tokens", "compute", "affordable")}
    numbers = {name: None if value is None else float(parse_quantity(value, name)) for name, value in given.items()}
    show_suggestions(fit, config.suggest, overrides, **numbers)
