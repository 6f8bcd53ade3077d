"""One job of a sweep or a study, in whichever process it runs: what it says, how far it is, and how it ended, in files.

| file in the sweep's folder | holds |
|---|---|
| sweep.json | what the sweep is; the process that launched it |
| jobs/0003.json | how the job ended; what the sweep's outcome is read from |
| running/0003.json | its process, and how far it is |
| logs/0003.log | what it said |
| hydra/0003/ | Hydra's folder of the job |
| stop | exists while the sweep is being stopped: no further job starts |
"""

import contextlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import MaquetteError
from maquette.artifacts.files import listed, read_json
from maquette.artifacts.progress import report_to, say
from maquette.artifacts.reading import load_sealed, write_sealed
from maquette.artifacts.targets import place_of
from maquette.cli.command_line.registry import Stage
from maquette.cli.sweeps.forecast import forget_shared, shared_tokens
from maquette.cli.sweeps.jobs import trains_on_text

FINISHED, FAILED = "finished", "failed"
_LOOK = 0.5
"""Seconds between two looks at the process that launched this one."""


class Files:
    """Where the jobs of a sweep leave what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stop = folder / "stop"
        self.sweep = folder / "sweep.json"

    def outcome(self, number: int) -> Path:
        return self.folder / "jobs" / f"{number:04d}.json"

    def running(self, number: int) -> Path:
        return self.folder / "running" / f"{number:04d}.json"

    def log(self, number: int) -> Path:
        return self.folder / "logs" / f"{number:04d}.log"

    def tell(self, number: int, step: int, steps: int) -> None:
        """Notes how far a job is. Not worth a flush to the disk: it is read while the job runs."""
        path = self.running(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"process": os.getpid(), "step": step, "steps": steps}))
        new.replace(path)

    def outcomes(self) -> dict[int, dict[str, Any]]:
        """How the jobs that ended did."""
        return {int(path.stem): load_sealed(path) for path in listed(self.folder / "jobs", "*.json")}

    def in_progress(self) -> dict[int, dict[str, Any]]:
        """The jobs that have begun and not ended."""
        states = {int(path.stem): read_json(path) for path in listed(self.folder / "running", "*.json")}
        return {number: job for number, job in states.items() if job is not None}  # None: it ended just now

    def clear(self) -> None:
        """Removes what an earlier launch left, but for the logs."""
        for path in (*self.folder.glob("jobs/*.json"), *self.folder.glob("running/*"), self.stop):
            path.unlink(missing_ok=True)


def subdir(number: int) -> str:
    """Hydra's folder of a job within the sweep's, by which the job knows its number."""
    return f"hydra/{number:04d}"


def run_job(stage: Stage, settings: Any, folder: Path, number: int) -> Any:
    """Runs a job of the sweep in `folder`, and writes down how it ended. Returns its result, None where it failed.

    A failure does not get out of here; an interruption does, in the process of the sweep itself.
    """
    files = Files(folder)
    sweep = read_json(files.sweep) or {}
    launcher = int(sweep.get("process") or 0)
    _follow(launcher, started=sweep.get("launcher") == "joblib" and os.getpid() != launcher)
    if files.stop.exists() or files.outcome(number).exists():
        return None
    if sweep.get("began") not in _sweeps:
        forget_shared()  # a worker process may outlive a sweep
    _sweeps.add(sweep.get("began"))
    try:
        files.tell(number, 0, 0)
        with _speaking_to(files.log(number)):
            outcome, result = _outcome(stage, settings, files, number)
    except KeyboardInterrupt:
        files.running(number).unlink(missing_ok=True)
        if os.getpid() == launcher:
            raise
        return None
    if branches := sweep["branches"][number]:
        outcome["branches"] = branches
    write_sealed(files.outcome(number), {"job": sweep["jobs"][number]} | outcome)
    files.running(number).unlink(missing_ok=True)
    return result


def _outcome(stage: Stage, settings: Any, files: Files, number: int) -> tuple[dict[str, Any], Any]:
    outcome: dict[str, Any] = {"status": FINISHED, "exit_code": 0}
    began, result = time.monotonic(), None
    try:
        with report_to(lambda step, steps: files.tell(number, step, steps)):
            result = stage.run(settings, *([shared_tokens(settings)] if trains_on_text(stage, settings) else []))
        outcome |= {"result": str(getattr(result, "folder", result)), **numbers_of(result)}
    except MaquetteError as error:
        outcome |= {"status": FAILED, "exit_code": error.exit_code, "error": str(error)}
    except Exception as error:
        traceback.print_exc()  # in the job's log
        outcome |= {"status": FAILED, "exit_code": 1, "error": f"{type(error).__name__}: {error}{place_of(error)}"}
    if "error" in outcome:
        say(f"failed: {outcome['error']}")
    return outcome | {"seconds": round(time.monotonic() - began, 3)}, result


def numbers_of(result: Any) -> dict[str, Any]:
    """What a run's record says in numbers; nothing for other results."""
    names = ("validation_loss", "bits_per_byte", "training_loss", "tokens_per_second", "loss_spikes")
    return {name: value for name in names if isinstance(value := getattr(result, name, None), int | float)}


_sweeps: set[Any] = set()
_followed: set[int] = set()


def _follow(launcher: int, *, started: bool) -> None:
    """From now on this worker process ends when the process that launched it does: joblib's would wait for ever.

    A job under way saves first. A process that somebody else started (Slurm, submitit) lives on. `started`: the
    launcher has started this one, so that it is dead where it is not the parent: it was killed during the imports.
    """
    if os.getppid() != launcher and started:
        os._exit(1)
    if os.getppid() != launcher or launcher in _followed:
        return
    _followed.add(launcher)

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_LOOK)
        if not _busy.is_set():
            os._exit(1)
        os.kill(os.getpid(), signal.SIGTERM)  # training saves and ends
        _idle.wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_busy, _idle = threading.Event(), threading.Event()


def is_busy() -> bool:
    """Whether a job is under way in this process."""
    return _busy.is_set()


@contextlib.contextmanager
def _speaking_to(log: Path) -> Iterator[None]:
    """What a job says goes to its log: many jobs at once would talk over each other."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _idle.clear()
    _busy.set()
    try:
        with log.open("a", encoding="utf-8", buffering=1) as file, contextlib.redirect_stderr(file):
            yield
    finally:
        _busy.clear()
        _idle.set()
