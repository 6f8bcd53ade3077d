"""The plan of a sweep, kept in its folder: with nothing left to do, nothing heavy has to be imported to see that.

A plan holds as long as its inputs are the same: the settings of every member, the program itself, strangers' code that
the settings name, and the digests of the tokens that its jobs read.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import maquette
from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.files import digest, write_json
from maquette.artifacts.manifest import read_manifest
from maquette.data.config import CustomDataConfig
from maquette.stages.config import TrainStage
from maquette.stages.sweeps.forecast import Forecast, read_json
from maquette.stages.sweeps.jobs import Line, Sweep, SweepJob

FILE = "plan.json"


def stored_plan(line: Line, *, dry: bool = False) -> Sweep | None:
    """The sweep as it was planned before; None where it was not, or its inputs have changed. `dry`: nothing is read to
    see whether the data have."""
    folder = Path(line.settings.outputs) / "sweeps" / line.name
    plan = read_json(folder / FILE)
    if plan is None or plan["settings"] != settings_digest(line):
        return None
    if not dry and plan["data"] != data_digests(line):
        return None
    jobs = tuple(
        SweepJob(
            tuple(job["overrides"]),
            tuple(job["words"]),
            forecast=None if job["forecast"] is None else Forecast.read(job["forecast"]),
        )
        for job in plan["jobs"]
    )
    remarks = (*plan["remarks"], *(["as it was planned when the data were last read"] if dry else []))
    return Sweep(line.stage, line.name, line.settings, jobs, remarks)


def store_plan(sweep: Sweep, line: Line) -> None:
    """Keeps a plan, unless somebody should look at it again: a job that could not be planned, other data each time."""
    if any(job.error is not None or job.forecast is None for job in sweep.jobs) or (data := data_digests(line)) is None:
        return
    jobs = [
        {"overrides": job.overrides, "words": job.words, "forecast": job.forecast.plain() if job.forecast else None}
        for job in sweep.jobs
    ]
    plan = {"settings": settings_digest(line), "data": data, "remarks": list(sweep.remarks), "jobs": jobs}
    write_json(sweep.folder / FILE, plan)


def settings_digest(line: Line) -> str:
    """Of all that was typed and of the code that gives it its meaning."""
    settings = [dataclasses.asdict(one) for _, one in line.members]
    return digest([settings, [words for words, _ in line.members], code_digest(*settings), _program()])


def data_digests(line: Line) -> list[str] | None:
    """Of the tokens that its jobs read, made where they are missing. None for jobs that read anything else."""
    from maquette.stages import tokens

    found: dict[str, str] = {}
    for _, settings in line.members:
        if not isinstance(settings, TrainStage) or not settings.objective.entry.reads_text:
            return None
        if settings.checkpoint is not None or isinstance(settings.data, CustomDataConfig):
            return None
        parts = [getattr(settings, field.name) for field in dataclasses.fields(tokens.TokensStage)]
        key = digest([dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part for part in parts])  # type: ignore[arg-type]
        if key not in found:
            found[key] = read_manifest(tokens.run(dataclasses.replace(settings, force=False)).folder).digest
    return list(found.values())


def _program() -> str:
    """Changes with any file of this program."""
    root, stamp = Path(maquette.__file__).parent, hashlib.sha256(maquette.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        facts: Any = path.stat()
        stamp.update(f"{path.relative_to(root)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return stamp.hexdigest()
