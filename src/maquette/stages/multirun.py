"""`-m`: one run for each combination of the values given, through Hydra's launchers.

All jobs are composed and checked before the first one starts; a sweep of training runs says what it will cost. It is
one parent run in MLflow with a child per job, and one folder `<outputs>/sweeps/<name>` that says how each job ended. A
job that fails is reported and does not take the others with it; one that is already done is not run again: typing the
line again continues a sweep that was stopped or killed.
"""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import locked, write_json
from maquette.artifacts.progress import say
from maquette.stages import Stage
from maquette.stages.config import TrainStage
from maquette.stages.sweeps import launching, table
from maquette.stages.sweeps.bias import branch_bias
from maquette.stages.sweeps.jobs import Sweep, plan
from maquette.stages.sweeps.view import Expected, viewed
from maquette.stages.sweeps.work import FAILED, FINISHED, Files, Work

_DIED = "its process ended without a word (out of memory, or killed)"


def multirun(stage: Stage, overrides: Sequence[str], config_folder: Path | None = None, *, show: bool = False) -> int:
    """Runs a sweep; returns 0 when every job went well, else the exit code of the last that did not.

    `show`: prints what it would run and cost, and runs nothing.
    """
    return run_sweep(plan(stage, overrides, config_folder), overrides, config_folder, show=show)


def run_sweep(sweep: Sweep, overrides: Sequence[str], config_folder: Path | None = None, *, show: bool = False) -> int:
    """The same for a sweep that was planned from these overrides."""
    stage = sweep.stage
    seconds, source = _expected_seconds(sweep)
    left = [number for number, job in enumerate(sweep.jobs) if not job.is_done]
    chosen = _choose_launching(sweep, overrides, left, seconds)
    _tell(sweep, seconds, source, chosen)
    if show:
        return 0
    with locked(sweep.folder), _recorded(sweep, chosen) as recorded:
        files = Files(recorded.folder)
        files.clear()
        _note_done(recorded, files)
        if chosen.launcher != "basic" and chosen.slots != 1:  # longest first: no process ends long after the rest
            left.sort(key=lambda number: -seconds[number] if math.isfinite(seconds[number]) else 0.0)
        words = [*launching.hydra_words(stage, overrides, config_folder), *chosen.words]
        _run(recorded, left, seconds, chosen, words, config_folder)
        outcomes = files.outcomes()
        path = table.write_table(recorded, outcomes)
    return _conclude(recorded, outcomes, path)


def _expected_seconds(sweep: Sweep) -> tuple[list[float], str]:
    """Of each job in one process; nan where nobody can say, 0 for what is done."""
    waiting = [job.forecast for job in sweep.jobs if job.forecast is not None and not job.is_done]
    if not waiting:
        return [0.0 if job.is_done else math.nan for job in sweep.jobs], ""
    from maquette.stages.sweeps.cost import seconds_of_jobs

    found, source = seconds_of_jobs(waiting, Path(sweep.jobs[0].settings.outputs))
    times = iter(found)
    return [0.0 if job.is_done else math.nan if job.forecast is None else next(times) for job in sweep.jobs], source


def _choose_launching(
    sweep: Sweep, overrides: Sequence[str], left: Sequence[int], seconds: Sequence[float]
) -> launching.Launching:
    cores = launching.usable_cores()
    forecasts = [found for number in left if (found := sweep.jobs[number].forecast) is not None]
    threads = None
    if forecasts:
        asked = [sweep.jobs[number].settings.threads for number in left]
        narrow = all(found.job.hardware.threads == 1 for found in forecasts)
        threads = max(asked) if all(asked) else 1 if narrow else max(1, cores // len(left))
    return launching.choose_launching(
        overrides,
        jobs=len(left),
        seconds=sum(seconds[number] for number in left),
        threads=threads,
        cores=cores,
        accelerated=any(found.job.hardware.accelerator != "cpu" for found in forecasts),
    )


def _tell(sweep: Sweep, seconds: Sequence[float], source: str, chosen: launching.Launching) -> None:
    """The jobs and what they will cost."""
    say(f"sweep {sweep.name}: {len(sweep.jobs)} jobs of maquette {sweep.stage.name}")
    if any(job.forecast for job in sweep.jobs):
        say(table.show_jobs(sweep, seconds))
        say(table.cost_in_words(sweep, seconds, source, chosen.slots or 1))
    for remark in (*sweep.remarks, *table.repeated_text(sweep)):
        say(remark)
    say(chosen.why)


def _note_done(sweep: Sweep, files: Files) -> None:
    """Jobs that are finished already have their outcome at once."""
    for number, job in enumerate(sweep.jobs):
        if job.is_done and job.forecast is not None:
            from maquette.stages.sweeps.work import numbers_of
            from maquette.training import read_record

            record = read_record(job.forecast.folder)
            outcome: dict[str, Any] = {"job": list(job.words), "status": FINISHED, "exit_code": 0, "skipped": True}
            outcome |= {"result": str(job.forecast.folder), **numbers_of(record), "seconds": 0.0}
            if job.forecast.branches:
                outcome["branches"] = [str(folder) for folder in job.forecast.branches]
            write_json(files.outcome(number), outcome)


def _run(
    sweep: Sweep,
    left: Sequence[int],
    seconds: Sequence[float],
    chosen: launching.Launching,
    words: Sequence[str],
    config_folder: Path | None,
) -> None:
    """Launches the jobs until each has an outcome.

    A worker process that dies takes its launcher with it; the jobs that did not get their turn are launched again,
    those that were under way once more, and the second time their death is theirs.
    """
    files = Files(sweep.folder)
    expected = [
        Expected(job.title, job.forecast.compute if job.forecast else 0.0, time if math.isfinite(time) else 0.0)
        for job, time in zip(sweep.jobs, seconds, strict=True)
    ]
    suspects: set[int] = set()
    while waiting := [number for number in left if not files.outcome(number).exists()]:
        work = Work(sweep, tuple(waiting), os.getpid(), chosen.slots)
        apart = chosen.launcher != "basic"
        with viewed(sweep.name, expected, files), _stoppable(files, apart) as heard:
            trouble = ""
            try:
                launching.launch(sweep.stage, work, words, sweep.folder, config_folder)
            except (ConfigError, KeyboardInterrupt):
                raise
            except Exception as error:
                trouble = f"{type(error).__name__}: {error}"
        if heard:
            raise KeyboardInterrupt
        under_way = set(files.in_progress()) - set(files.outcomes())
        for number in under_way & suspects or (set(waiting) if trouble and not under_way else set()):
            if not files.outcome(number).exists():
                why = _DIED if number in suspects else trouble
                outcome = {"job": list(sweep.jobs[number].words), "status": FAILED, "exit_code": 1, "error": why}
                write_json(files.outcome(number), outcome | {"seconds": 0.0})
        if not trouble and not under_way:
            break
        suspects |= under_way
        for number in under_way:
            files.running(number).unlink(missing_ok=True)


def draw_sweep(folder: Path) -> list[Path]:
    """See `sweep_pictures`, which is heavy to import."""
    from maquette.stages import sweep_pictures

    return sweep_pictures.draw_sweep(folder)


@contextlib.contextmanager
def _stoppable(files: Files, apart: bool) -> Iterator[list[int]]:
    """Signals are for the workers where there are any; in this process training listens for itself."""
    if not apart:
        yield []
        return
    with launching.stopping_gently(files) as heard:
        yield heard


def _conclude(sweep: Sweep, outcomes: dict[int, dict[str, Any]], path: Path) -> int:
    failed = [(number, outcome) for number, outcome in outcomes.items() if outcome["status"] != FINISHED]
    for number, outcome in failed:
        say(f"failed: {sweep.jobs[number].title}: {outcome['error']}")
    for line in branch_bias(sweep):
        say(line)
    say(f"sweep {sweep.name}: {len(outcomes) - len(failed)} of {len(sweep.jobs)} jobs done; {path}")
    return int(failed[-1][1]["exit_code"]) if failed else 0


@contextlib.contextmanager
def _recorded(sweep: Sweep, chosen: launching.Launching) -> Iterator[Sweep]:
    """The sweep with each job's record in MLflow a child of the sweep's own, which is made (or found again) here.

    It also has the threads of each job, which depend on how many run beside it.
    """
    jobs = sweep.jobs
    if chosen.threads is not None:
        jobs = tuple(
            dataclasses.replace(
                job, settings=dataclasses.replace(job.settings, threads=chosen.threads)
            ) if isinstance(job.settings, TrainStage) else job
            for job in jobs
        )  # fmt: skip
    tracking = getattr(jobs[0].settings, "tracking", None)
    path = sweep.folder / "sweep.json"
    facts: dict[str, Any] = {"name": sweep.name, "stage": sweep.stage.name, "run_id": None}
    facts["jobs"] = [list(job.words) for job in jobs]
    facts["runs"] = [str(job.forecast.folder) if job.forecast else None for job in jobs]
    if tracking is None or not tracking.enabled:
        write_json(path, facts)
        yield dataclasses.replace(sweep, jobs=jobs)
        draw_sweep(sweep.folder)
        return
    from maquette.tracking import start_parent_run
    from maquette.tracking.store import embedded_file, store_uri

    outputs = jobs[0].settings.outputs
    if chosen.launcher == "submitit_slurm" and embedded_file(store_uri(tracking, outputs)) is not None:
        raise ConfigError(
            "hydra/launcher=submitit_slurm runs jobs on several machines, and a SQLite file can't be shared by them.",
            "Start `mlflow server` on one and give its address, tracking.uri=http://host:5000; or tracking=none.",
        )
    before = json.loads(path.read_text()).get("run_id") if path.exists() else None
    with start_parent_run(
        tracking,
        outputs=outputs,
        name=sweep.name,
        folder=sweep.folder,
        params={"stage": sweep.stage.name, "jobs": len(jobs), "launcher": chosen.launcher},
        run_id=before,
    ) as record:
        write_json(path, facts | {"run_id": record.run_id})
        children = tuple(
            dataclasses.replace(
                job,
                settings=dataclasses.replace(
                    job.settings, tracking=dataclasses.replace(job.settings.tracking, parent=record.run_id)
                ),
            )
            for job in jobs
        )
        yield dataclasses.replace(sweep, jobs=children)
        if (sweep.folder / table.FILE).exists():
            record.log_artifact(sweep.folder / table.FILE)
        for picture in draw_sweep(sweep.folder):
            record.log_artifact(picture, "figures")
