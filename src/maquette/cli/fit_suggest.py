"""`maquette fit ... suggest=3`: the affordable runs that narrow a prediction most per FLOP, as lines to type."""

import shlex
from pathlib import Path

from rich.console import Console

from maquette.artifacts.settings import parse_quantity
from maquette.cli.command_line.law_config import FitStage
from maquette.cli.family_settings import family_settings
from maquette.reports import quantity, terminal_table
from maquette.scaling.fits.next_run import Suggestion, candidates, suggest_runs
from maquette.scaling.fits.stored_fit import load_fit
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.surface import Allocation

_DEFAULT_REACH = 10


def suggest(config: FitStage, folder: Path) -> list[Suggestion]:
    """Prints and returns the next runs for the fit in `folder`."""
    fit, _ = load_fit(folder)
    target = wanted(config, fit)
    affordable = fit.comparison.largest_budget
    if config.affordable is not None:
        affordable = float(parse_quantity(config.affordable, "affordable"))
    suggestions = suggest_runs(
        fit.surface, fit.table.params, fit.table.tokens, target, candidates(fit, affordable), count=config.suggest
    )
    forms = {"N": "{params:quantity}", "D": "{tokens:quantity}", "FLOPs": "{compute:.2g}"}
    forms |= {"standard error before": "{error_before:.3%}", "after": "{error_after:.3%}"}
    title = (
        f"next runs for the loss at N {quantity(target.params)}, D {quantity(target.tokens)} "
        f"(each at most {affordable:.2g} FLOPs)"
    )
    console = Console()
    console.print(terminal_table(forms, suggestions, title))
    for line in lines(config, fit, suggestions):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return suggestions


def wanted(config: FitStage, fit: SweepFit) -> Allocation:
    """N and D of the run whose loss is to be known; by default the best at ten times the largest budget."""
    params, tokens, compute = (
        None if value is None else float(parse_quantity(value, name))
        for name, value in (("size", config.size), ("tokens", config.tokens), ("compute", config.compute))
    )
    return fit.allocation(params, tokens, compute or fit.comparison.largest_budget * _DEFAULT_REACH)


def lines(config: FitStage, fit: SweepFit, suggestions: list[Suggestion]) -> list[str]:
    """One multirun for each budget; a run that is suggested again is another seed."""
    frame = fit.table.frame
    overrides: list[str] = []
    if "folder" in frame.columns and frame["folder"].notna().all():
        overrides = family_settings([Path(str(folder)) for folder in frame["folder"]], config.outputs).overrides
    if config.outputs != "outputs":
        overrides.append(f"outputs={config.outputs}")
    groups: dict[tuple[str, int], list[str]] = {}
    times: dict[tuple[str, str], int] = {}
    for run in suggestions:
        # 6 N D of the suggestion is what the planner counts; the run's own FLOPs are what `compute` means.
        compute = f"{run.compute * fit.flops_per_product / 6:.3g}"
        size = f"{float(f'{run.params:.3g}'):.0f}"
        repeat = times[size, compute] = times.get((size, compute), -1) + 1
        groups.setdefault((compute, repeat), []).append(size)
    taken = int(fit.table.seed.max()) if fit.table.seed is not None else 0
    return [
        shlex.join(
            ["maquette", "train", "-m", f"size={','.join(sizes)}", f"compute={compute.replace('+', '')}", *overrides]
            + ([f"seed={taken + repeat}"] if repeat else [])
        )
        for (compute, repeat), sizes in groups.items()
    ]
