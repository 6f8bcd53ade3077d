"""`maquette fit ... suggest=3`: the affordable runs that narrow a prediction most per FLOP, as lines to type."""

import itertools
import shlex
from pathlib import Path

import numpy as np
from rich.console import Console

from maquette.artifacts.settings import parse_quantity
from maquette.reports import quantity, terminal_table
from maquette.scaling.fits.next_run import Suggestion, suggest_runs
from maquette.scaling.fits.stored_fit import load_fit
from maquette.scaling.fits.sweep_fit import SweepFit
from maquette.scaling.laws.surface import Allocation
from maquette.stages.family_settings import family_settings
from maquette.stages.law_config import FitStage

_SIZES = 17
_DEFAULT_REACH = 10


def suggest(config: FitStage, folder: Path) -> list[Suggestion]:
    """Prints and returns the next runs for the fit in `folder`."""
    fit, _ = load_fit(folder)
    target = wanted(config, fit)
    affordable = fit.comparison.largest_budget
    if config.affordable is not None:
        affordable = float(parse_quantity(config.affordable, "affordable"))
    found = suggest_runs(
        fit.surface, fit.table.params, fit.table.tokens, target, candidates(fit, affordable), count=config.suggest
    )
    forms = {"N": "{params:quantity}", "D": "{tokens:quantity}", "FLOPs": "{compute:.2g}"}
    forms |= {"standard error before": "{error_before:.3%}", "after": "{error_after:.3%}"}
    title = (
        f"next runs for the loss at N {quantity(target.params)}, D {quantity(target.tokens)} "
        f"(each at most {affordable:.2g} FLOPs)"
    )
    console = Console()
    console.print(terminal_table(forms, found, title))
    for line in lines(config, fit, found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return found


def wanted(config: FitStage, fit: SweepFit) -> Allocation:
    """N and D of the run whose loss is to be known; by default the best at ten times the largest budget."""
    compute = fit.comparison.largest_budget * _DEFAULT_REACH
    if config.compute is not None:
        compute = float(parse_quantity(config.compute, "compute"))
    if config.size is None:
        return fit.best(compute)
    params = float(parse_quantity(config.size, "size"))
    if config.tokens is None:
        return Allocation(params, compute / (fit.flops_per_product * params))
    return Allocation(params, float(parse_quantity(config.tokens, "tokens")))


def candidates(fit: SweepFit, affordable: float) -> tuple[np.ndarray, np.ndarray]:
    """N and D of the runs one could train: sizes of the family and a little beyond, budgets half a decade apart, and
    tokens per parameter not far outside of what was tried."""
    table = fit.table
    sizes = np.geomspace(table.params.min() / 1.5, table.params.max() * 3, _SIZES)
    steps = max(0, int(np.floor(2 * np.log10(affordable / table.budget.min()) + 1e-9)))
    budgets = np.unique([*(affordable / 10 ** (np.arange(steps + 1) / 2)), affordable])
    ratio = table.tokens / table.params
    pairs = np.array(
        [(size, budget / fit.flops_per_product / size) for size, budget in itertools.product(sizes, budgets)]
    )
    inside = (pairs[:, 1] / pairs[:, 0] >= ratio.min() / 3) & (pairs[:, 1] / pairs[:, 0] <= ratio.max() * 3)
    return pairs[inside, 0], pairs[inside, 1]


def lines(config: FitStage, fit: SweepFit, found: list[Suggestion]) -> list[str]:
    """One multirun for each budget; a run that is suggested again is another seed."""
    frame = fit.table.frame
    words: list[str] = []
    if "folder" in frame.columns and frame["folder"].notna().all():
        words = family_settings([Path(str(folder)) for folder in frame["folder"]], config.outputs).overrides
    if config.outputs != "outputs":
        words.append(f"outputs={config.outputs}")
    groups: dict[tuple[str, int], list[str]] = {}
    times: dict[tuple[str, str], int] = {}
    for run in found:
        # 6 N D of the suggestion is what the planner counts; the run's own FLOPs are what `compute` means.
        compute = f"{run.compute * fit.flops_per_product / 6:.3g}"
        size = f"{float(f'{run.params:.3g}'):.0f}"
        repeat = times[size, compute] = times.get((size, compute), -1) + 1
        groups.setdefault((compute, repeat), []).append(size)
    taken = int(fit.table.seed.max()) if fit.table.seed is not None else 0
    return [
        shlex.join(
            ["maquette", "train", "-m", f"size={','.join(sizes)}", f"compute={compute.replace('+', '')}", *words]
            + ([f"seed={taken + repeat}"] if repeat else [])
        )
        for (compute, repeat), sizes in groups.items()
    ]
