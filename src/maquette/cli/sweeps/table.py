"""What a sweep prints before it starts and writes when it ends: its jobs, what they cost, what came out of them, and
what its branches cost."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.artifacts.files import listed, write_text
from maquette.artifacts.progress import duration
from maquette.artifacts.reading import load_sealed
from maquette.artifacts.run_file import FINISHED
from maquette.cli.sweeps.jobs import Sweep
from maquette.cli.sweeps.sweep_job import SweepJob
from maquette.training.record import RunRecord, read_record

COLUMNS = (
    "job", "run", "status", "size", "tokens", "compute", "width", "layers", "learning_rate", "batch_size_tokens",
    "epochs", "validation_loss", "bits_per_byte", "training_loss",
)  # fmt: skip
FILE = "table.csv"


def show_jobs(sweep: Sweep, seconds: Sequence[float]) -> str:
    """The table of jobs as text; `seconds` expected of each in one process (nan: unknown)."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    sparse = any(job.forecast is not None and job.forecast.inactive for job in sweep.jobs)
    sizes = (("N active", False), ("in all", False)) if sparse else (("N", False),)
    for name, left in (("", False), ("job", True), *sizes, ("D", False), ("D/N", False), ("steps", False)):
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for name in ("width x layers", "rate", "FLOPs", "time"):
        table.add_column(name, justify="right")
    for number, (job, expected) in enumerate(zip(sweep.jobs, seconds, strict=True), 1):
        table.add_row(str(number), job.title, *_cells(job, expected, sparse))
    text = io.StringIO()
    Console(file=text, width=160, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _cells(job: SweepJob, seconds: float, sparse: bool) -> list[str]:
    if job.forecast is None:
        return [*[""] * (7 + sparse), "can't be prepared" if job.error else ""]
    forecast = job.forecast
    total = [f"{forecast.size + forecast.inactive:,}"] if sparse else []
    return [
        f"{forecast.size:,}", *total, f"{forecast.tokens:,}", f"{forecast.tokens / forecast.size:.1f}",
        f"{forecast.steps:,}", f"{forecast.width} x {forecast.layers}", f"{forecast.learning_rate:.3g}",
        f"{forecast.compute:.2e}",
        "done" if forecast.finished else "?" if math.isnan(seconds) else duration(seconds),
    ]  # fmt: skip


def cost_in_words(sweep: Sweep, seconds: Sequence[float], source: str, processes: int) -> str:
    """`3.2e12 FLOPs in 12 jobs (4 done): 2.1e12 to do, about 3 min 5 s in 2 processes (speed ...)`."""
    forecasts = [job.forecast for job in sweep.jobs if job.forecast is not None]
    if not forecasts:
        return ""
    total = sum(one.compute for one in forecasts)
    left = [(one.compute, time) for one, time in zip(forecasts, _of_forecasts(sweep, seconds), strict=True)
            if not one.finished]  # fmt: skip
    text = f"{total:.3g} FLOPs in {len(sweep.jobs)} jobs"
    if done := sum(one.finished for one in forecasts):
        text += f" ({done} done already: {sum(flops for flops, _ in left):.3g} to do)"
    times = [time for _, time in left]
    if times and not any(map(math.isnan, times)):
        wall = max(max(times), sum(times) / processes)
        many = f" in {processes} processes" if processes > 1 else ""
        text += f", about {duration(wall)}{many} ({source})"
    elif times:
        text += "; ? where no speed is known: no such model was trained on this machine yet, and --show measures none"
    return text


def _of_forecasts(sweep: Sweep, seconds: Sequence[float]) -> list[float]:
    return [time for job, time in zip(sweep.jobs, seconds, strict=True) if job.forecast is not None]


def repeated_text(sweep: Sweep) -> list[str]:
    """A warning for each domain that some job reads more than once: laws of the loss are laws of fresh text."""
    worst: dict[str, tuple[float, SweepJob]] = {}
    for job in sweep.jobs:
        for domain, epochs in (job.forecast.epochs if job.forecast else {}).items():
            if epochs > worst.get(domain, (1.0, job))[0]:
                worst[domain] = (epochs, job)
    return [
        f"WARNING: {job.title} reads the domain {domain} {epochs:.1f} times: the sweep is not under one epoch. "
        "Use more text, smaller budgets, or other mixture weights, unless repetition is what you study."
        for domain, (epochs, job) in worst.items()
    ]


def rows(sweep: Sweep, outcomes: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each job with the `COLUMNS`: what it was and what came out."""
    table = []
    for number, job in enumerate(sweep.jobs):
        outcome = outcomes.get(number, {"status": "not run"})
        row: dict[str, Any] = {"job": job.title, "status": outcome["status"]}
        if job.forecast is not None:
            names = ("run", "size", "tokens", "compute", "width", "layers", "learning_rate", "batch_size_tokens")
            row |= {name: getattr(job.forecast, name) for name in names}
            row["epochs"] = round(max(job.forecast.epochs.values(), default=0.0), 4)
        row |= {name: outcome.get(name) for name in ("validation_loss", "bits_per_byte", "training_loss")}
        table += _of_branches(row, job) if job.forecast is not None and job.forecast.branches else [row]
    return [{name: row.get(name) for name in COLUMNS} for row in table]


def _of_branches(row: dict[str, Any], job: SweepJob) -> list[dict[str, Any]]:
    """A row for each run of a job with branches, by rising tokens."""
    assert job.forecast is not None
    rows = []
    for folder in job.forecast.branches:
        record = read_record(folder)
        if record is None:
            rows.append({"job": row["job"], "status": "not run", "run": Path(folder).name})
            continue
        rows.append(
            row | {
                "status": record.status, "run": record.name,
                "tokens": record.spec.tokens, "compute": record.spec.compute,
                "epochs": round(max((one["epochs"] for one in record.domains.values()), default=0.0), 4),
                "validation_loss": record.validation_loss, "bits_per_byte": record.bits_per_byte,
                "training_loss": record.training_loss,
            }
        )  # fmt: skip
    return rows


def write_table(sweep: Sweep, outcomes: dict[int, dict[str, Any]]) -> Path:
    """Writes `table.csv` in the sweep's folder: the same whether the sweep ran through or was continued."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(sweep, outcomes))
    path = sweep.folder / FILE
    write_text(path, text.getvalue())
    return path


def draw_sweep(folder: Path) -> list[Path]:
    """The pictures of the sweep in `folder`, as PNG and SVG; none for a sweep that has none or too few jobs.

    `sft_size`: held-out loss over the number of examples; `precision`: loss and speed in each number format."""
    name = folder.name.rpartition("-")[0]
    if name not in ("sft_size", "precision"):
        return []
    from maquette.training.report import draw_precisions, draw_sizes

    records, kinds, draw = _finished(folder), set(), draw_precisions
    if name == "sft_size":
        records = [record for record in records if record.facts.get("train")]
        kinds, draw = {record.facts["train"]["examples"] for record in records}, draw_sizes
    else:
        records = [record for record in records if record.validation_loss and record.tokens_per_second]
        kinds = {record.spec.precision for record in records}
    if len(kinds) < 2:
        return []
    picture = draw(records, folder / "figures" / name)
    return [picture, picture.with_suffix(".svg")]


def _finished(folder: Path) -> list[RunRecord]:
    finished = []
    for path in listed(folder / "jobs", "*.json"):
        outcome = load_sealed(path)
        record = read_record(outcome["result"]) if outcome.get("result") else None
        if record is not None:
            finished.append(record)
    return finished


def branch_bias(sweep: Sweep) -> list[str]:
    """A line for each token budget of a model that was trained as a branch and with its own schedule; none where
    nothing was, or not all of it is there yet."""
    if not getattr(getattr(sweep.settings, "sweep", None), "branches", False):
        return []
    branched: dict[tuple[int, int], RunRecord] = {}
    own: dict[tuple[int, int], RunRecord] = {}
    for job in sweep.jobs:
        if job.forecast is None or job.forecast.folder is None:
            continue
        branches = job.forecast.branches
        for folder in branches or (job.forecast.folder,):
            record = read_record(folder)
            if record is not None and record.status == FINISHED and record.validation_loss is not None:
                at = (record.spec.size, record.spec.tokens)
                (branched if branches else own)[at] = record
    both = sorted(branched.keys() & own.keys())
    if not both:
        return []
    lines = ["branches of a trunk against schedules of their own (a bias of the laws fitted to branches):"]
    for size, tokens in both:
        one, other = branched[size, tokens].validation_loss, own[size, tokens].validation_loss
        assert one is not None and other is not None
        lines.append(f"  N {size:,}, D {tokens:,}: {one:.4f} against {other:.4f}, {one / other - 1:+.2%}")
    return lines
