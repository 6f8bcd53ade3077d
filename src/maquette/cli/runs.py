"""`maquette runs`: the runs in MLflow side by side."""

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console

from maquette.artifacts.progress import say
from maquette.cli.command_line.law_config import RunsStage
from maquette.tracking import find_runs
from maquette.tracking.runs_table import differences_table, results_table, tab_separated_runs
from maquette.tracking.search import mlflow_page

if TYPE_CHECKING:
    import pandas as pd


def run(config: RunsStage) -> "pd.DataFrame | dict[str, Any]":
    """Prints a table (TSV into a pipe), or JSON, of the newest runs and returns all that is known of them; with `diff`
    of what two of them differ in."""
    tracking = config.tracking
    if config.diff:
        from maquette.training.run_difference import show_differences

        return show_differences(config.diff, config.outputs, config.tracking, json=config.json)
    runs = find_runs(
        config.outputs, uri=tracking.uri, experiment=tracking.experiment, filter=config.filter, limit=config.limit
    )
    if config.json:
        chosen = runs[["name", *config.columns]] if config.columns else runs
        print(chosen.to_json(orient="records", date_format="iso", indent=2))
        return runs
    if not len(runs):
        where = tracking.uri or config.outputs
        say(
            f"No run of the experiment '{tracking.experiment}' in {where} matches filter={config.filter}."
            if config.filter
            else f"There are no runs of the experiment '{tracking.experiment}' in {where} yet. "
            "Train one with maquette train, or begin with maquette demo."
        )
        return runs
    if not sys.stdout.isatty():
        print("\n".join(tab_separated_runs(runs, config.columns)))
        return runs
    console = Console()
    console.print(results_table(runs, config.columns, width=console.width))
    if not config.columns and (differences := differences_table(runs, width=console.width)) is not None:
        console.print(differences)
    say(f"in MLflow: {mlflow_page(config.outputs, tracking)}")
    return runs
