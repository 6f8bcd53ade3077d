"""The other laws of `maquette fit`: of the learning rate, the batch, repetition, and of families beside each other."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.progress import say
from maquette.cli.command_line.law_config import FitStage
from maquette.recipe.recipe_file import recipe_path, save_recipe
from maquette.reports import write_page
from maquette.scaling.fits.families import FamilyComparison, compare_by, comparison_facts, comparison_figure
from maquette.scaling.fits.mixture_fit import MixtureFit, fit_mixture, mixture_facts, mixture_figure, verdict
from maquette.scaling.fits.repetition_fit import RepetitionResult, fit_epochs, repetition_facts, repetition_figure
from maquette.scaling.fits.stored_fit import PAGE, RUNS, store_fit
from maquette.scaling.fits.table import RunTable
from maquette.scaling.fits.tuned_recipe import TunedRecipe, tune, tuned_facts, tuned_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAW = "law.json"

_PAGES = {
    FamilyComparison: "families.html.j2",
    MixtureFit: "mixing_law.html.j2",
    RepetitionResult: "repetition_law.html.j2",
    TunedRecipe: "setting_law.html.j2",
}


def fit_law(config: FitStage, table: RunTable) -> Path:
    """The law that `laws` names; of a setting it also leaves a recipe in `<outputs>/recipes/`. Returns the artifact."""
    if config.laws == "repetition":
        epochs = fit_epochs(table, seed=config.seed, level=config.level)
        figure = repetition_figure(epochs, table)
        return _keep(config, table, "repetition", epochs, epochs.words, repetition_facts(epochs), figure)
    if config.laws == "mixture":
        return _mixture(config, table)
    tuned = tune(table, str(config.laws), config.level)
    name = config.name or str(config.laws)
    outputs = [] if config.outputs == "outputs" else [f"outputs={config.outputs}"]
    line = shlex.join(["maquette", "train", "-m", "+sweep=isoflop", f"recipe={name}", *outputs])
    folder = _keep(
        config, table, str(config.laws), tuned, tuned.words, tuned_facts(tuned), tuned_figure(tuned), command=line
    )
    path = save_recipe(tuned.rules, recipe_path(name, config.outputs))
    say(f"recipe: {path}. Use it: {line}")
    return folder


def _mixture(config: FitStage, table: RunTable) -> Path:
    """The mixing law, its optimum, and where asked for that one trained."""
    fit = fit_mixture(table, max_epochs=config.max_epochs, targets=config.targets)
    verified = train_mixture(fit, table, config.outputs) if config.verify else None
    facts, summary = mixture_facts(fit, verified), verdict(fit, verified)
    folder = _keep(config, table, "mixture", fit, summary, facts, mixture_figure(fit, verified))
    shares = ",".join(f"{name}:{share:g}" for name, share in fit.mixture.items())
    say(f"Use it: maquette train 'mixture.weights={{{shares}}}'")
    return folder


def compare(config: FitStage, table: RunTable) -> Path:
    """The families that `compare` makes, beside each other. Returns the artifact."""
    comparison = compare_by(table, str(config.compare), config.level)
    label = f"by-{config.compare}"
    return _keep(
        config, table, label, comparison, comparison.words, comparison_facts(comparison), comparison_figure(comparison)
    )


def _keep(
    config: FitStage, table: RunTable, label: str, law: Any, summary: str, facts: dict[str, Any], figure: "Figure",
    **shown: Any,
) -> Path:  # fmt: skip
    """The artifact of a law; `words` say it in short, `shown` is what else its page says."""

    def make(folder: Path) -> dict[str, Any]:
        write_text(folder / RUNS, table.csv())
        write_json(folder / LAW, {"source": table.source, **facts})
        page = {"found": law, "source": table.source, "words": summary, **shown}
        write_page(folder, _PAGES[type(law)], page, {"law": figure})
        return {"law": label}

    settings = {name: getattr(config, name) for name in ("laws", "compare", "convention", "level", "seed", "without")}
    settings |= {
        name: getattr(config, name) for name in ("max_epochs", "targets", "verify") if config.laws == "mixture"
    }
    folder = store_fit(
        table, make, outputs=config.outputs, runs=config.runs, settings=settings, tracking=config.tracking,
        label=label, name=config.name, force=config.force,
    )  # fmt: skip
    if config.json:
        print(json.dumps(facts, indent=2, default=str))
        return folder
    console = Console()
    console.print(summary, markup=False, highlight=False)
    for warning in facts["warnings"]:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")
    say(f"Open {(folder / PAGE).absolute().as_uri()}")
    return folder


def train_mixture(fit: MixtureFit, table: RunTable, outputs: str) -> float:
    """Mean held-out loss over the targets of a run with the optimum's weights; nothing is trained where it is done."""
    from maquette.cli import train
    from maquette.cli.family_settings import read_settings

    folders = [str(folder) for folder in table.frame.get("folder", ()) if isinstance(folder, str)]
    if not folders:
        raise StageError(f"{table.source} does not say where its runs are.", "Verify where the sweep was trained.")
    config = read_settings(Path(folders[0]))
    tracking = dataclasses.replace(config.tracking, parent=None, run_name=None)
    config = dataclasses.replace(
        config,
        outputs=outputs,
        mixture=dataclasses.replace(config.mixture, weights=fit.mixture),
        sweep=type(config.sweep)(),
    )
    say("training the best mixture")
    record = train.run(config.tracked(tracking))
    losses = [record.domains[name]["loss"] for name in fit.domains]
    return float(np.dot(losses, fit.targets))
