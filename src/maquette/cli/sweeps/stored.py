"""The plan of a sweep, kept in its folder: with nothing left to do, nothing heavy has to be imported to see that.

A plan holds as long as its inputs are the same: the settings of every member, the program itself, strangers' code that
the settings name, and the digests of what its jobs read. What jobs after pretraining will be only they can tell, so
they are in it with the runs that they turned out to be, once they have ended.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from maquette.artifacts.code_digest import code_digest
from maquette.artifacts.errors import MaquetteError
from maquette.artifacts.files import digest, file_digest, listed, read_json, write_json
from maquette.artifacts.manifest import program_digest, read_manifest
from maquette.cli.command_line.config import TrainStage
from maquette.cli.sweeps.forecast import PlannedJob
from maquette.cli.sweeps.jobs import Line, Sweep, trains_on_text
from maquette.cli.sweeps.sweep_job import SweepJob
from maquette.data.config import CustomDataConfig
from maquette.model.loading import find_reward_model, model_folder

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
            tuple(job["arguments"]),
            forecast=None if job["forecast"] is None else PlannedJob.read(job["forecast"]),
            run=None if line.settings.force else job["run"],
        )
        for job in plan["jobs"]
    )
    remarks = (*plan["remarks"], *(["as it was planned when the data were last read"] if dry else []))
    return Sweep(line.stage, line.name, line.settings, jobs, remarks)


def store_plan(sweep: Sweep, line: Line, runs: Mapping[int, str] | None = None) -> None:
    """Keeps a plan, unless somebody should look at it again: a job that could not be planned, other data each time.
    `runs`: the folders of the runs of jobs that have ended."""
    planned = any(trains_on_text(line.stage, settings) for _, settings in line.members)
    unknown = any(job.error is not None or (job.forecast is None and planned) for job in sweep.jobs)
    if unknown or (data := data_digests(line)) is None:
        return
    jobs = [
        {
            "overrides": job.overrides,
            "arguments": job.arguments,
            "forecast": job.forecast.plain() if job.forecast else None,
            "run": (runs or {}).get(number),
        }
        for number, job in enumerate(sweep.jobs)
    ]
    plan = {"settings": settings_digest(line), "data": data, "remarks": list(sweep.remarks), "jobs": jobs}
    write_json(sweep.folder / FILE, plan)


def settings_digest(line: Line) -> str:
    """Of all that was typed and of the code that gives it its meaning."""
    settings = [dataclasses.asdict(one) for _, one in line.members]
    return digest([settings, [arguments for arguments, _ in line.members], code_digest(*settings), program_digest()])


def data_digests(line: Line) -> list[str] | None:
    """Of what its jobs read: tokens, made where they are missing; after pretraining a model and files of examples. None
    for jobs that read anything else."""
    from maquette.cli import tokens

    digests: dict[str, str] = {}
    for _, settings in line.members:
        if not isinstance(settings, TrainStage):
            return None
        if not settings.objective.entry.reads_text:
            try:
                read = {str(path): path for path in _read_after_pretraining(settings)}
            except MaquetteError:  # a job will say so
                return None
            digests |= {name: file_digest(path) for name, path in read.items() if name not in digests}
            continue
        if settings.checkpoint is not None or isinstance(settings.data, CustomDataConfig):
            return None
        parts = [getattr(settings, field.name) for field in dataclasses.fields(tokens.TokensStage)]
        key = digest([dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part for part in parts])  # type: ignore[arg-type]
        if key not in digests:
            digests[key] = read_manifest(tokens.run(dataclasses.replace(settings, force=False)).folder).digest
    return list(digests.values())


def _read_after_pretraining(settings: TrainStage) -> Iterator[Path]:
    """The files behind a run that starts from a model."""
    models = [settings.starting_folder]
    if settings.objective.entry.reads == "prompts" and settings.reward.checkpoint is not None:
        models.append(find_reward_model(settings.reward.checkpoint, settings.outputs))
    for folder in models:
        yield from (path for path in listed(model_folder(folder)) if path.is_file()) if folder else ()
    for part in (settings.instructions, settings.preferences, settings.prompts):
        path = Path(getattr(part, "path", None) or "")
        yield from (one for one in listed(path, "**/*") if one.is_file()) if path.name and path.is_dir() else ()
        yield from [path] if path.is_file() else []
