"""The other laws of `maquette fit`: of the learning rate, the batch, repetition, and of families beside each other."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from maquette.artifacts.files import write_json, write_text
from maquette.artifacts.progress import say
from maquette.recipe.recipe_file import recipe_path, save_recipe
from maquette.reports.figures import save_figure
from maquette.scaling.fits.families import compare_by, comparison_facts, comparison_figure, comparison_page
from maquette.scaling.fits.mixture_fit import fit_mixture, mixture_facts, mixture_figure, mixture_page
from maquette.scaling.fits.repetition_report import fit_epochs, repetition_facts, repetition_figure, repetition_page
from maquette.scaling.fits.stored_fit import PAGE, RUNS
from maquette.scaling.fits.table import RunTable
from maquette.scaling.fits.tuned_recipe import tune, tuned_facts, tuned_figure, tuned_page
from maquette.stages.config import FitStage
from maquette.stages.mixture_run import train_mixture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maquette.artifacts.page import Page

LAW = "law.json"


def fit_law(config: FitStage, table: RunTable) -> Path:
    """The law that `laws` names; of a setting it also leaves a recipe in `<outputs>/recipes/`. Returns the artifact."""
    if config.laws == "repetition":
        found = fit_epochs(table, seed=config.seed, level=config.level)
        figure = repetition_figure(found, table)
        facts = repetition_facts(found)
        return _keep(config, table, "repetition", facts, figure, repetition_page(found, table.source, figure))
    if config.laws == "mixture":
        return _mixture(config, table)
    tuned = tune(table, str(config.laws), config.level)
    name = config.name or str(config.laws)
    outputs = [] if config.outputs == "outputs" else [f"outputs={config.outputs}"]
    line = shlex.join(["maquette", "train", "-m", "+sweep=isoflop", f"recipe={name}", *outputs])
    figure = tuned_figure(tuned)
    facts = tuned_facts(tuned)
    folder = _keep(config, table, str(config.laws), facts, figure, tuned_page(tuned, table.source, line, figure))
    path = save_recipe(tuned.rules, recipe_path(name, config.outputs))
    say(f"recipe: {path}. Use it: {line}")
    return folder


def _mixture(config: FitStage, table: RunTable) -> Path:
    """The mixing law, its optimum, and where asked for that one trained."""
    found = fit_mixture(table, max_epochs=config.max_epochs, targets=config.targets)
    verified = train_mixture(found, table, config.outputs) if config.verify else None
    figure = mixture_figure(found, verified)
    page = mixture_page(found, table.source, figure, verified)
    folder = _keep(config, table, "mixture", mixture_facts(found, verified), figure, page)
    shares = ",".join(f"{name}:{share:g}" for name, share in found.mixture.items())
    say(f"Use it: maquette train 'mixture.weights={{{shares}}}'")
    return folder


def compare(config: FitStage, table: RunTable) -> Path:
    """The families that `compare` makes, beside each other. Returns the artifact."""
    found = compare_by(table, str(config.compare), config.level)
    figure = comparison_figure(found)
    page = comparison_page(found, table.source, figure)
    return _keep(config, table, f"by-{config.compare}", comparison_facts(found), figure, page)


def _keep(config: FitStage, table: RunTable, label: str, facts: dict[str, Any], figure: "Figure", page: "Page") -> Path:
    from maquette.stages.fit import record, store

    made = False

    def make(folder: Path) -> dict[str, Any]:
        nonlocal made
        made = True
        write_text(folder / RUNS, table.csv())
        write_json(folder / LAW, {"source": table.source, **facts})
        save_figure(figure, folder / "figures" / "law")
        page.write(folder / PAGE)
        return {"law": label}

    settings = {name: getattr(config, name) for name in ("laws", "compare", "convention", "level", "seed", "without")}
    settings |= {
        name: getattr(config, name) for name in ("max_epochs", "targets", "verify") if config.laws == "mixture"
    }
    folder = store(config, table, label, settings, make)
    if made:
        record(config, folder)
    if config.json:
        print(json.dumps(facts, indent=2, default=str))
    else:
        _tell(facts, page, folder)
    return folder


def _tell(facts: dict[str, Any], page: "Page", folder: Path) -> None:
    console = Console()
    console.print(page.lead, markup=False, highlight=False)
    for warning in facts["warnings"]:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")
    say(f"Open {(folder / PAGE).absolute().as_uri()}")
