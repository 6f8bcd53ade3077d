"""`maquette backtest`: how good predictions were on tables whose larger runs are known."""

import dataclasses
import json
from pathlib import Path

from rich.console import Console

from maquette.artifacts.files import write_json
from maquette.artifacts.progress import say
from maquette.cli.command_line.law_config import BacktestStage
from maquette.reports import write_page
from maquette.reports.tables import terminal_table
from maquette.scaling.fits.backtest import Backtest, backtest, backtest_figure
from maquette.scaling.fits.families import split_families
from maquette.scaling.fits.question import FitQuestion

_COLUMNS = {
    "law": "{law}", "reach": "{reach:g}x", "median": "{median_error:.2%}", "mean": "{bias:+.2%}",
    "50%": "{inside50:.0%}", "90%": "{inside90:.0%}", "width": "{width90:.1%}", "score": "{score90:.3f}",
}  # fmt: skip


def run(config: BacktestStage) -> Backtest:
    """Tests every law, writes `<outputs>/backtests/<name>/`, and prints the errors by reach."""
    table = FitQuestion(dataclasses.asdict(config) | {"without": []}, config.tracking).read_runs()
    tables = {table.source: table} if config.by is None else split_families(table, config.by)
    result = backtest(tables, config.forms)
    folder = Path(config.outputs) / "backtests" / (config.name or Path(table.source).stem.replace(" ", "-"))
    write_json(folder / "backtest.json", result.facts() | {"source": table.source, "by": config.by})
    page = {"result": result, "records": result.records(), "source": table.source}
    write_page(folder, "backtest.html.j2", page, {"backtest": backtest_figure(result)})
    if config.json:
        print(json.dumps(result.facts(), indent=2))
        return result
    Console().print(terminal_table(_COLUMNS, result.records(), f"errors of ln L, {len(tables)} tables"))
    for name, constants in result.constants.items():
        values = ", ".join(f"{value:.3g}" for value in constants)
        say(f"interval constants {name}: {values}")
    say(f"Open {(folder / 'index.html').absolute().as_uri()}")
    return result
