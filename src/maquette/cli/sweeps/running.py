"""A sweep from its line to its table: what `hydra/sweeper=maquette` does.

All jobs are composed and checked before the first one starts; a sweep of training runs says what it will cost. It is
one parent run in MLflow with a child per job, and one folder `<outputs>/sweeps/<name>` that says how each job ended. A
job that fails is reported and does not take the others with it; one that is already done is not run again: the same
line continues a sweep that was stopped or killed.
"""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import open_dict

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import locked, read_json, write_json
from maquette.artifacts.progress import say
from maquette.artifacts.reading import write_sealed
from maquette.artifacts.run_file import read_run
from maquette.cli.command_line.application import Application, config_folder_of
from maquette.cli.command_line.composition import to_settings
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.foreign import check_foreign
from maquette.cli.command_line.gpus import visible_gpus
from maquette.cli.command_line.overrides import hydra_overrides, literal
from maquette.cli.sweeps import launching, table
from maquette.cli.sweeps.jobs import DryPlanner, Line, Sweep, plan_line, read_line
from maquette.cli.sweeps.stored import store_plan, stored_plan
from maquette.cli.sweeps.view import Expected, viewed
from maquette.cli.sweeps.work import FAILED, FINISHED, Files, numbers_of, subdir
from maquette.data.process_group import process_group, usable_cores
from maquette.tracking.config import TrackingConfig, mlflow_node

_STALE = "its process ended without a word (out of memory, or killed)"


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a sweep; `exit_code` is that of the last job that failed, else 0."""

    name: str
    folder: Path
    exit_code: int = 0


def run_sweep(sweeper: Any, arguments: Sequence[str]) -> Report:
    """Runs the line that the sweeper was given, on the launcher that was chosen."""
    application, config, context = sweeper.task_function, sweeper.config, sweeper.hydra_context
    if not isinstance(application, Application):
        raise ConfigError("hydra/sweeper=maquette sweeps maquette's own stages.", "Use hydra/sweeper=basic.")
    if process_group().size > 1:
        raise ConfigError(
            f"-m: a sweep is started once, not by {process_group().size} processes.",
            "Leave torchrun or srun out: each job starts its own (trainer=ddp), or asks Slurm for them "
            "(hydra/launcher=submitit_slurm).",
        )

    folder = config_folder_of(config.hydra)

    def composed(arguments: Sequence[str]) -> Any:
        arguments = hydra_overrides(application.stage, arguments, folder)
        composition = context.config_loader.load_sweep_config(config, list(arguments))
        with open_dict(composition):
            del composition["hydra"]
        return to_settings(application.stage, composition, arguments, classes=False)

    line = read_line(
        application.stage, arguments, folder, params=sweeper.params, composed=composed,
        config_loader=context.config_loader,
    )  # fmt: skip
    sweep = stored_plan(line, dry=application.dry)
    if sweep is None:
        for _, settings in () if application.dry else line.members:
            check_foreign(settings)  # now that something is to be done
        sweep = plan_line(line, DryPlanner() if application.dry else None)
        if not application.dry:
            store_plan(sweep, line)
    report = _run_planned(sweep, line, sweeper, dry=application.dry)
    application.sweep = report
    return report


def _run_planned(sweep: Sweep, line: Line, sweeper: Any, *, dry: bool) -> Report:
    hydra = [*sweeper.config.hydra.overrides.hydra]
    choice = sweeper.config.hydra.runtime.choices["hydra/launcher"]
    if choice != "basic" and not any(text.startswith("hydra/launcher=") for text in hydra):
        hydra.append(f"hydra/launcher={choice}")  # chosen by a config file
    seconds, source = _expected_seconds(sweep, dry=dry)
    left = [number for number, job in enumerate(sweep.jobs) if not job.is_done]
    chosen = _choose_launching(sweep, hydra, left, seconds)
    _tell(sweep, seconds, source, chosen, dry=dry)
    if dry:
        return Report(sweep.name, sweep.folder)
    files = Files(sweep.folder)
    if not left and _concluded(sweep, files):
        return _conclude(sweep, files.outcomes(), sweep.folder / table.FILE)
    if chosen.launcher != "basic" and chosen.slots != 1:  # longest first: no process ends long after the rest
        left.sort(key=lambda number: -seconds[number] if math.isfinite(seconds[number]) else 0.0)
    with locked(sweep.folder), _recorded(sweep, chosen) as observing:
        files.clear()
        _note_done(sweep, files)
        launch = _launcher(sweep, line, sweeper, chosen, observing)
        try:
            _run(sweep, left, seconds, chosen, files, launch)
        finally:
            outcomes = files.outcomes()
            if any(job.forecast is None for job in sweep.jobs):
                ended = {number: one["result"] for number, one in outcomes.items() if one["status"] == FINISHED}
                store_plan(sweep, line, ended)
        path = table.write_table(sweep, outcomes)
    return _conclude(sweep, outcomes, path)


def _concluded(sweep: Sweep, files: Files) -> bool:
    """Whether the table of this sweep is written, with every job in it."""
    record, outcomes = read_json(files.sweep) or {}, files.outcomes()
    same = record.get("jobs") == [list(job.arguments) for job in sweep.jobs]
    ended = len(outcomes) == len(sweep.jobs) and all(one["status"] == FINISHED for one in outcomes.values())
    tracking = _tracking(sweep)
    shown = not tracking.enabled or tracking.experiment in _run_ids(files)
    return same and ended and shown and bool(record.get("concluded"))


def _expected_seconds(sweep: Sweep, *, dry: bool) -> tuple[list[float], str]:
    """Of each job in one process; nan where nobody can say, 0 for what is done."""
    waiting = [job.forecast for job in sweep.jobs if job.forecast is not None and not job.is_done]
    if not waiting:
        return [0.0 if job.is_done else math.nan for job in sweep.jobs], ""
    from maquette.cli.sweeps.cost import seconds_of_jobs

    seconds, source = seconds_of_jobs(waiting, Path(sweep.settings.outputs), dry=dry)
    times = iter(seconds)
    return [0.0 if job.is_done else math.nan if job.forecast is None else next(times) for job in sweep.jobs], source


def _choose_launching(
    sweep: Sweep, hydra: Sequence[str], left: Sequence[int], seconds: Sequence[float]
) -> launching.Launching:
    cores = usable_cores()
    forecasts = [forecast for number in left if (forecast := sweep.jobs[number].forecast) is not None]
    threads = None
    processes = max((forecast.processes for forecast in forecasts), default=1)
    if forecasts:
        asked = getattr(sweep.settings, "threads", None)
        narrow = all(forecast.threads == 1 for forecast in forecasts)
        threads = asked or (1 if narrow else max(1, cores // (len(left) * processes)))
    accelerated = any(forecast.accelerator != "cpu" for forecast in forecasts)
    return launching.choose_launching(
        hydra,
        jobs=len(left),
        seconds=sum(seconds[number] for number in left),
        threads=threads,
        cores=cores,
        accelerated=accelerated,
        gpus=len(visible_gpus()) if accelerated else 0,
        processes=processes,
    )


def _tell(sweep: Sweep, seconds: Sequence[float], source: str, chosen: launching.Launching, *, dry: bool) -> None:
    """The jobs and what they will cost."""
    say(f"sweep {sweep.name}: {len(sweep.jobs)} jobs of maquette {sweep.stage.name}")
    if any(job.forecast for job in sweep.jobs):
        say(table.show_jobs(sweep, seconds))
        say(table.cost_in_words(sweep, seconds, source, chosen.slots or 1))
    elif dry:
        say("\n".join(f"{number}  {job.title}" for number, job in enumerate(sweep.jobs, 1)))
        say("what they cost is not known before their data is read, which --show does not do")
    for remark in (*sweep.remarks, *table.repeated_text(sweep)):
        say(remark)
    say(chosen.why)


def _note_done(sweep: Sweep, files: Files) -> None:
    """Jobs that are finished already, or can't be at all, have their outcome at once."""
    from maquette.training.record import read_record

    for number, job in enumerate(sweep.jobs):
        outcome: dict[str, Any] = {"job": list(job.arguments), "seconds": 0.0}
        if job.error is not None:
            write_sealed(files.outcome(number), outcome | {"status": FAILED, "exit_code": 1, "error": job.error})
        elif job.is_done and (folder := job.forecast.folder if job.forecast else job.run) is not None:
            outcome |= {"status": FINISHED, "exit_code": 0, "skipped": True, "result": folder}
            if job.forecast is not None and job.forecast.branches:
                outcome["branches"] = list(job.forecast.branches)
            write_sealed(files.outcome(number), outcome | numbers_of(read_record(folder)))


def _launcher(
    sweep: Sweep, line: Line, sweeper: Any, chosen: launching.Launching, observing: Sequence[str]
) -> Callable[[Sequence[int]], None]:
    """A function that hands jobs to Hydra's launcher, and returns when they have ended."""
    config, loader = sweeper.config, sweeper.hydra_context.config_loader
    arguments = [
        *config.hydra.overrides.hydra, *chosen.arguments,
        f"hydra.sweep.dir={literal(sweep.folder.absolute())}", "hydra.mode=MULTIRUN",
    ]  # fmt: skip
    fixed = [text for text in line.overrides if text.startswith("+sweep=")]
    master = loader.load_configuration(
        config.hydra.job.config_name, [*arguments, *fixed], run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False
    )
    folder = config_folder_of(config.hydra)
    size = sweeper.max_batch_size or chosen.batch

    def launch(numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), size or len(numbers)):
            batch = numbers[start : start + (size or len(numbers))]
            jobs = [
                [
                    *hydra_overrides(line.stage, sweep.jobs[number].overrides, folder),
                    *observing,
                    f"hydra.sweep.subdir={subdir(number)}",
                ]
                for number in batch
            ]
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=sweeper.hydra_context, task_function=sweeper.task_function, config=master
            )
            launcher.launch(jobs, initial_job_idx=start)

    return launch


def _run(
    sweep: Sweep,
    left: Sequence[int],
    seconds: Sequence[float],
    chosen: launching.Launching,
    files: Files,
    launch: Callable[[Sequence[int]], None],
) -> None:
    """Launches the jobs until each has an outcome.

    A worker process that dies takes its launcher with it; the jobs that did not get their turn are launched again,
    those that were under way once more, and the second time their death is theirs. A launch in which no job begins (a
    worker was killed during its imports) is made once more, too.
    """
    expected = [
        Expected(job.title, job.forecast.compute if job.forecast else 0.0, time if math.isfinite(time) else 0.0)
        for job, time in zip(sweep.jobs, seconds, strict=True)
    ]
    suspected: set[int] = set()
    in_vain = 0
    while waiting := [number for number in left if not files.outcome(number).exists()]:
        # Signals are for the workers where there are any; in this process training listens for itself.
        stopping: contextlib.AbstractContextManager[list[int]] = contextlib.nullcontext([])
        if chosen.launcher != "basic":
            stopping = launching.stopping_gently(files)
        with viewed(f"sweep {sweep.name}", expected, files), stopping as heard:
            trouble = ""
            try:
                launch(waiting)
            except (ConfigError, KeyboardInterrupt):
                raise
            except Exception as error:
                trouble = f"{type(error).__name__}: {error}"
        if heard:
            raise KeyboardInterrupt
        under_way = set(files.in_progress()) - set(files.outcomes())
        missing = {number for number in waiting if not files.outcome(number).exists()}
        in_vain = 0 if under_way or len(missing) < len(waiting) else in_vain + 1
        for number in (under_way & suspected) or (missing if in_vain == 2 else set()):
            why = _STALE if number in suspected else trouble or "it did not begin"
            write_sealed(files.outcome(number), {"status": FAILED, "exit_code": 1, "error": why, "seconds": 0.0})
        suspected |= under_way
        for number in under_way:
            files.running(number).unlink(missing_ok=True)


def _conclude(sweep: Sweep, outcomes: dict[int, dict[str, Any]], path: Path) -> Report:
    failed = [(number, outcome) for number, outcome in outcomes.items() if outcome["status"] != FINISHED]
    for number, outcome in failed:
        say(f"failed: {sweep.jobs[number].title}: {outcome['error']}")
    for line in table.branch_bias(sweep):
        say(line)
    say(f"sweep {sweep.name}: {len(outcomes) - len(failed)} of {len(sweep.jobs)} jobs done; {path}")
    return Report(sweep.name, sweep.folder, int(failed[-1][1]["exit_code"]) if failed else 0)


def _tracking(sweep: Sweep) -> TrackingConfig:
    tracking: TrackingConfig = getattr(sweep.settings, "tracking", TrackingConfig(enabled=False))
    return tracking


@contextlib.contextmanager
def _recorded(sweep: Sweep, chosen: launching.Launching) -> Iterator[list[str]]:
    """The sweep's own record in MLflow, made or found again. Yields what its jobs get beyond their overrides: to
    be recorded below it, and their threads, which depend on how many run beside them."""
    arguments = []
    if chosen.threads is not None and hasattr(sweep.settings, "threads"):
        arguments.append(f"threads={chosen.threads}")
    files = Files(sweep.folder)
    facts: dict[str, Any] = {
        "name": sweep.name,
        "stage": sweep.stage.name,
        "launcher": chosen.launcher,
        "process": os.getpid(),
        "began": time.time(),
        "jobs": [list(job.arguments) for job in sweep.jobs],
        "branches": [list(job.forecast.branches) if job.forecast else [] for job in sweep.jobs],
        "runs": [job.forecast.folder if job.forecast else None for job in sweep.jobs],
    }
    from maquette.tracking import start_parent_run
    from maquette.tracking.store import embedded_file, store_uri

    tracking, outputs = _tracking(sweep), sweep.settings.outputs
    before = _run_ids(files)
    slurm = chosen.launcher == "submitit_slurm" and tracking.enabled
    if slurm and embedded_file(store_uri(tracking, outputs)) is not None:
        raise ConfigError(
            "hydra/launcher=submitit_slurm runs jobs on several machines, and a SQLite file can't be shared by them.",
            "Start `mlflow server` on one, and give logger.mlflow.tracking_uri=http://host:5000; or logger=none.",
        )
    with start_parent_run(
        tracking,
        outputs=outputs,
        name=sweep.name,
        folder=sweep.folder,
        params={"stage": sweep.stage.name, "jobs": len(sweep.jobs), "launcher": chosen.launcher},
        run_id=before.get(tracking.experiment),
    ) as record:
        facts["run_id"] = record.run_id
        facts["run_ids"] = before | {tracking.experiment: record.run_id}
        write_json(files.sweep, facts)
        parent = [] if record.run_id is None else [f"{_parent_key(sweep.settings)}={literal(record.run_id)}"]
        jobs = "\n".join(f"- {job.title}" for job in sweep.jobs)
        record.describe(f"{len(sweep.jobs)} jobs of `maquette {sweep.stage.name}`:\n\n{jobs}")
        for run_id in _trained_before(sweep):
            record.show_again(run_id)
        yield [*arguments, *parent]
        if (sweep.folder / table.FILE).exists():
            record.log_artifact(sweep.folder / table.FILE)
        for picture in table.draw_sweep(sweep.folder):
            record.log_artifact(picture, "figures")
        write_json(files.sweep, facts | {"concluded": True})


def _run_ids(files: Files) -> dict[str, str]:
    """The sweep's runs in MLflow, by experiment; an older file has one, of the experiment that there is by default."""
    known = read_json(files.sweep) or {}
    only = {TrackingConfig.experiment: known["run_id"]} if known.get("run_id") else {}
    return dict(known.get("run_ids", only))


def _trained_before(sweep: Sweep) -> Iterator[str]:
    """MLflow's runs of the jobs that are done already: another experiment may hold them."""
    for job in sweep.jobs:
        if job.is_done:
            folder = job.forecast.folder if job.forecast else job.run
            for place in (job.forecast and job.forecast.branches) or (folder,):
                if run_id := ((place and read_run(place)) or {}).get("tracking_run"):
                    yield run_id


def _parent_key(settings: Any) -> str:
    """The setting by which a job is shown below its sweep."""
    if isinstance(settings, TrainStage):
        return f"++logger.{mlflow_node(settings.logger)}.parent_run_id"
    return "tracking.parent"
