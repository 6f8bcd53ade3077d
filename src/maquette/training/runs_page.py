"""Runs as a page: all runs of an outputs folder, or the jobs of a sweep, with how their losses fell and their results.

The curves over compute are how compute-optimal training was first seen (Hoffmann et al. 2022, figure 2): at each budget
the curve of another size is the lowest.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maquette.artifacts.errors import StageError
from maquette.artifacts.run_file import FILE, FINISHED
from maquette.recipe.objectives import entry_of
from maquette.reports.figures import curve, new_figure, size_colors
from maquette.reports.overview import PAGE
from maquette.reports.pages import is_current, write_page
from maquette.reports.tables import quantity
from maquette.training.metrics_file import read_history
from maquette.training.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = 60
"""Runs whose curves are drawn at most: the last ones."""


def write_runs_page(folder: Path, records: Sequence[RunRecord], *, force: bool = False) -> None:
    """Writes the page of all runs into their folder, unless none has changed since."""
    if force or not is_current(folder / PAGE, _sources(records)):
        facts = _facts(records) | {"title": "Runs", "kind": "runs", "jobs": []}
        write_page(folder, "runs.html.j2", facts, _figures(records))


def write_sweep_page(
    folder: Path, outcomes: Mapping[int, Mapping[str, Any]], records: Sequence[RunRecord], *, force: bool = False
) -> None:
    """Writes a sweep's page into its folder, unless nothing has changed since. `outcomes`: how each job ended, with its
    arguments `job` and the folder of its run as `result`; `records`: of all runs."""
    names = {Path(str(one.get("result"))).name for one in outcomes.values()}
    own = [record for record in records if record.name in names]
    if not outcomes or (not force and is_current(folder / PAGE, [*_sources(own), folder / "jobs"])):
        return
    jobs = [
        (" ".join(one["job"]) or f"job {number}", one["status"], Path(str(one.get("result") or "")).name,
         one.get("validation_loss"), one.get("seconds"))
        for number, one in sorted(outcomes.items())
    ]  # fmt: skip
    facts = _facts(own) | {"title": f"Sweep {folder.name}", "kind": "sweep", "jobs": jobs}
    write_page(folder, "runs.html.j2", facts, _figures(own))


def _sources(records: Sequence[RunRecord]) -> list[Path]:
    return [Path(one.folder) / FILE for one in records]


def _facts(records: Sequence[RunRecord]) -> dict[str, Any]:
    """What the page shows: runs on text and others, the newest first, and the best of the former."""
    newest = sorted(records, key=lambda one: (one.started, one.name), reverse=True)
    on_text = [one for one in newest if entry_of(one.spec.objective).reads_text]
    others = [one for one in newest if not entry_of(one.spec.objective).reads_text]
    losses = [one for one in on_text if one.status == FINISHED and one.validation_loss is not None]
    best = min(losses, key=lambda one: one.validation_loss or 0.0, default=None)
    unfinished = [one for one in newest if one.status != FINISHED]
    return {"on_text": on_text, "others": others, "best": best, "unfinished": unfinished}


def _figures(records: Sequence[RunRecord]) -> dict[str, "Figure"]:
    curves = []
    for record in records:
        if not entry_of(record.spec.objective).reads_text or record.validation_loss is None:
            continue
        try:
            tokens, losses = curve(read_history(Path(record.folder) / "metrics.jsonl"), "tokens", "train/loss")
        except StageError:  # a damaged file is a matter of that run: its row says how it stands
            continue
        curves.append((record, [record.spec.compute * seen / record.spec.tokens for seen in tokens], losses))
    curves.sort(key=lambda one: one[0].started)
    return {"curves": _curves(curves[-_CURVES:])} if len(curves) > 1 else {}


def _curves(curves: Sequence[tuple[RunRecord, list[float], list[float]]]) -> "Figure":
    """Training loss over compute so far, a line a run in the colour of its size; dots: held-out loss at the end."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, LogNorm

    figure, axes = new_figure(width=7.0, height=4.4)
    sizes = [record.spec.size for record, _, _ in curves]
    scale = ScalarMappable(
        LogNorm(min(sizes), max(max(sizes), 1.01 * min(sizes))), ListedColormap(size_colors(64)[::-1])
    )
    for (record, compute, losses), color in zip(curves, scale.to_rgba(np.array(sizes)), strict=True):
        axes.plot(compute, losses, color=color, linewidth=0.8, alpha=0.7)
        axes.plot(record.spec.compute, record.validation_loss, "o", color=color, markersize=5, markeredgecolor="white")
    ends = [record.validation_loss or 0.0 for record, _, _ in curves]
    highest = 1.12 * max(ends)  # how curves begin is the same for all
    seen = [spent for _, compute, losses in curves for spent, loss in zip(compute, losses, strict=True)
            if loss <= highest and spent > 0]  # fmt: skip
    axes.set(xscale="log", xlabel="compute so far (FLOPs)", ylabel="loss (nats per token)")
    axes.set_ylim(0.96 * min(ends), highest)
    if seen:
        axes.set_xlim(0.8 * min(seen), 1.5 * max(record.spec.compute for record, _, _ in curves))
    bar = figure.colorbar(scale, ax=axes, label="parameters N", aspect=30, pad=0.02)
    bar.ax.yaxis.set_major_formatter(lambda size, _: quantity(size))
    bar.ax.yaxis.set_minor_formatter(lambda size, _: quantity(size) if f"{size:e}"[0] in "235" else "")
    return figure
