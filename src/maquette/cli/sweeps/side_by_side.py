"""Jobs that wait for each other, each in a worker process as soon as what it needs is made: the stages of a study.

A worker has one thread, and there is one for each core. A job runs by the steps of a sweep's (work.py): it speaks to
its log, tells how far it is, and writes down how it ended. Hydra's launchers can't take jobs one by one as they become
ready, so the processes are those that joblib's launcher would start.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from pathlib import Path
from types import FrameType
from typing import Any

from maquette.artifacts.errors import ConfigError, MaquetteError, StageError
from maquette.artifacts.files import locked, write_json
from maquette.artifacts.progress import say
from maquette.artifacts.reading import write_sealed
from maquette.cli.command_line.config import TrainStage
from maquette.cli.command_line.model_config import AnnotateStage, EvaluateStage
from maquette.cli.command_line.recipe_numbers import recipe_of, vocab_size
from maquette.cli.command_line.registry import Stage
from maquette.cli.sweeps.launching import stopping_gently
from maquette.cli.sweeps.view import Expected, viewed
from maquette.cli.sweeps.work import FINISHED, Files, is_busy, run_job
from maquette.data.process_group import default_threads
from maquette.model.hf import config_of, read_config
from maquette.model.loading import find_checkpoint, model_folder

Ready = Callable[[], Iterable[tuple[int, Stage, Any]]]
"""The jobs that can begin, in order: number, stage, settings; those that have begun are passed over."""


def run_side_by_side(
    name: str,
    folder: Path,
    titles: Sequence[str],
    done: Iterable[int],
    ready: Ready,
    ended: Callable[[int, Any], None],
    *,
    workers: int,
) -> None:
    """Runs what is `ready`, and what becomes so, until nothing is. `done`: jobs that have ended before; `ended(number,
    result)` is called with what a job has made.

    After a failure nothing begins any more, and what is under way comes to its end. Raises the first failure then,
    `KeyboardInterrupt` where it was stopped; the jobs under way have saved what they can resume from.
    """
    files = Files(folder)
    with locked(folder):
        files.clear()
        facts = {"name": name, "process": os.getpid(), "launcher": "joblib", "began": time.time()}
        write_json(files.sweep, facts | {"jobs": [[one] for one in titles], "branches": [[] for _ in titles]})
        for number in done:
            write_sealed(files.outcome(number), {"status": FINISHED, "skipped": True, "seconds": 0.0})
        with viewed(name, [Expected(title, 0.0, 0.0) for title in titles], files), stopping_gently(files) as heard:
            failures = _run(files, titles, ready, ended, workers, heard)
    if heard:
        raise KeyboardInterrupt
    if failures:
        raise failures[0]


def takes_one_thread(settings: Any) -> bool:
    """Whether a stage trains or samples a model by one thread of this machine's processor, and does nothing else: only
    then others may run beside it, and a process of one thread gives the same numbers."""
    if isinstance(settings, TrainStage):
        if settings.trainer.accelerator != "cpu" or str(settings.trainer.devices) not in ("auto", "1"):
            return False
        if settings.objective.entry.reads_text and settings.checkpoint is None:
            width = recipe_of(settings, vocab_size(settings)).architecture.hidden_size
            return (settings.threads or default_threads(1, width)) == 1
    elif isinstance(settings, AnnotateStage):
        if settings.given or settings.feedback.checkpoint or settings.rewards or settings.judges:
            return False
    elif not isinstance(settings, EvaluateStage) or settings.runs or settings.suite.preferences:
        return False
    if settings.checkpoint is None:
        return False
    folder = model_folder(find_checkpoint(settings.checkpoint, settings.outputs))
    width = config_of(read_config(folder), folder).hidden_size
    return (getattr(settings, "threads", None) or default_threads(1, width)) == 1


def _run(
    files: Files, titles: Sequence[str], ready: Ready, ended: Callable[[int, Any], None], workers: int, heard: list[int]
) -> list[MaquetteError]:
    """Returns the errors of jobs that failed."""
    from joblib.externals.loky import ProcessPoolExecutor

    failures: list[MaquetteError] = []
    begun: set[int] = set()
    running: dict[Future[Any], int] = {}
    pool = ProcessPoolExecutor(workers, initializer=_listen, env={"OMP_NUM_THREADS": "1"})
    try:
        while True:
            if not heard and all(one["status"] == FINISHED for one in files.outcomes().values()):
                able = [job for job in ready() if job[0] not in begun]
                for number, stage, settings in able[: workers - len(running)]:
                    say(f"[{number + 1}/{len(titles)}] {titles[number]}: maquette {stage.name}, in a process beside")
                    running[pool.submit(run_job, stage, settings, files.folder, number)] = number
                    begun.add(number)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED)[0]:
                number = running.pop(future)
                try:
                    result = future.result()
                except BrokenExecutor:
                    failures += [] if heard else [_ended_without_a_word(titles, [number, *running.values()])]
                    running.clear()
                    break
                error = _failure(files, number, titles[number])
                if error is None:
                    ended(number, result)
                elif not heard:
                    failures.append(error)
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise
    pool.shutdown()
    return failures


def _failure(files: Files, number: int, title: str) -> MaquetteError | None:
    """Why a job has failed; None where it has not."""
    outcome = files.outcomes().get(number)
    if outcome is None:
        return StageError(f"{title} was stopped.", "The same command resumes.")
    if outcome["status"] == FINISHED:
        return None
    message, _, hint = str(outcome["error"]).partition("\n  ")
    kind = ConfigError if outcome["exit_code"] == ConfigError.exit_code else StageError
    return kind(f"{title}: {message}", f"{hint or 'The same command resumes.'} (What it said: {files.log(number)})")


def _ended_without_a_word(titles: Sequence[str], numbers: Sequence[int]) -> StageError:
    names = " or ".join(titles[number] for number in sorted(numbers))
    return StageError(
        f"The process of {names} ended without a word (out of memory, or killed).", "The same command resumes."
    )


def _listen() -> None:
    """In a worker: Ctrl-C at a terminal reaches it, too, but the process that started it decides, which then sends
    SIGTERM: training saves, other stages end."""

    def stop(number: int, frame: FrameType | None) -> None:
        if is_busy():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
