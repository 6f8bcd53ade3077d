"""`maquette fit`: laws from a sweep in MLflow, or from anybody's table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.manifest import read_manifest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import is_dotted
from maquette.reports import terminal_table
from maquette.scaling.fits.fit_facts import counting_words, exponent_table, form_table
from maquette.scaling.fits.recorded import find_tokens, recorded_runs, with_copying
from maquette.scaling.fits.stored_fit import PAGE, read_facts, write_fit
from maquette.scaling.fits.sweep_fit import fit_sweep
from maquette.scaling.fits.table import RunTable, read_table
from maquette.scaling.laws.custom_form import custom_form
from maquette.stages import fit_laws, fit_suggest
from maquette.stages.fit_laws import is_file, record, store
from maquette.stages.law_config import FitStage


def run(config: FitStage) -> Path:
    """Fits what is asked for and returns the artifact's folder. Prints what a person wants to know of it."""
    for form in (config.form, *config.forms):
        if form is not None and is_dotted(form):
            custom_form(form)  # a mistake in it is said before the runs are read
    table = chosen_runs(config)
    if config.laws is not None:
        return fit_laws.fit_law(config, table)
    if config.compare is not None:
        return fit_laws.compare(config, table)
    folder = fit_loss(config, table)
    facts = read_facts(folder)
    if config.json:
        print(json.dumps(facts, indent=2))
    else:
        tell(facts, folder)
    if config.suggest:
        fit_suggest.suggest(config, folder)
    return folder


def chosen_runs(config: FitStage) -> RunTable:
    """The runs, in the convention asked for, without those that are left out by hand."""
    table = (
        read_table(config.runs)
        if config.runs and is_file(config.runs)
        else recorded_runs(config.runs, config.outputs, config.tracking)
    )
    table = with_copying(table.without(config.without), config.outputs)
    return table.in_convention(config.convention)


def fit_loss(config: FitStage, table: RunTable) -> Path:
    """The artifact with the laws of the loss."""
    corpus = corpus_facts(table, config.outputs)
    settings = {name: getattr(config, name) for name in ("form", "convention", "bootstrap", "level", "seed", "without")}
    own = [form for form in (config.form, *config.forms) if form is not None and is_dotted(form)]
    if own:
        settings |= {"forms": config.forms, "code": code_digest(*own)}
    made = False

    def make(folder: Path) -> dict[str, Any]:
        nonlocal made
        made = True
        fit = fit_sweep(
            table,
            form=config.form,
            forms=config.forms,
            bootstrap=config.bootstrap,
            seed=config.seed,
            level=config.level,
            corpus=corpus,
        )
        return write_fit(fit, folder, corpus)

    folder = store(config, table, "loss", settings, make)
    if made:
        record(config, folder)
    return folder


def corpus_facts(table: RunTable, outputs: str) -> dict[str, Any]:
    """What the tokens' manifest says of the text that all runs read, where it is on this machine."""
    digests = set(table.frame.get("tags.digest.tokens", ()))
    if len(digests) != 1 or not isinstance(only := next(iter(digests)), str):
        return {}
    folder = find_tokens(outputs, only)
    return {} if folder is None else {"held_out": read_manifest(folder).facts.get("held_out", {})}


def tell(facts: Mapping[str, Any], folder: Path) -> None:
    """Headline, tables and warnings at the terminal."""
    console = Console()
    console.print(
        f"{facts['runs']} runs of {facts['source']}, {len(facts['budgets'])} budgets", markup=False, highlight=False
    )
    console.print(terminal_table(*form_table(facts), "forms of law, by how they extrapolated"))
    console.print(terminal_table(*exponent_table(facts), f"N* ~ C^a ({facts['level']:.0%} intervals)"))
    console.print(facts["headline"], markup=False, highlight=False)
    if facts["curvature"] is not None:
        console.print(facts["curvature"]["words"], markup=False, highlight=False)
    if facts["kaplan"] is not None:
        console.print(counting_words(facts), markup=False, highlight=False)
    for reason in dict.fromkeys(run["reason"] for run in facts["left_out"]):
        runs = [run["run"] for run in facts["left_out"] if run["reason"] == reason]
        some = ", ".join(runs[:4]) + (" ..." if len(runs) > 4 else "")
        console.print(f"left out: {len(runs)} ({some}): {reason}", markup=False, highlight=False)
    for warning in facts["warnings"]:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")
    say(f"Open {(folder / PAGE).absolute().as_uri()}")
