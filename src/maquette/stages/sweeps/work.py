"""One job of a sweep, in whichever process it runs: what it says, how far it is, and how it ended, all in files.

| file in the sweep's folder | holds |
|---|---|
| jobs/0003.json | how the job ended; what the sweep's outcome is read from |
| running/0003.json | its process, and how far it is |
| logs/0003.log | what it said |
| slots/0 ... | locks: as many jobs of this machine run at once as there are |
| stop | exists while the sweep is being stopped: no further job starts |
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from maquette.artifacts.errors import MaquetteError
from maquette.artifacts.files import write_json
from maquette.artifacts.progress import say
from maquette.stages.sweeps.jobs import Sweep
from maquette.training.callbacks.progress import told

FINISHED, FAILED = "finished", "failed"
_LOOK = 0.5
"""Seconds between two looks at slots, or at the parent process."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A sweep as its jobs' processes know it.

    `order`: the jobs to launch, in their order; `parent`: the process that launched them; `slots`: how many may run at
    once on this machine (None: somebody else sees to that, such as Slurm).
    """

    sweep: Sweep
    order: tuple[int, ...]
    parent: int
    slots: int | None = None

    def run(self, place: int) -> None:
        """Runs the job at `place` of the order, and writes down how it ended.

        A failure does not get out of here; an interruption does, in the process of the sweep itself.
        """
        number = self.order[place]
        files = Files(self.sweep.folder)
        if files.stop.exists() or files.outcome(number).exists():
            return
        with _slot(files, self.slots), _following(self.parent):
            if files.stop.exists():
                return
            try:
                files.tell(number, 0, 0)
                with _speaking_to(files.log(number)):
                    outcome = self._outcome(number, files)
            except KeyboardInterrupt:
                files.running(number).unlink(missing_ok=True)
                if os.getpid() == self.parent:
                    raise
                return
            write_json(files.outcome(number), outcome)
            files.running(number).unlink(missing_ok=True)

    def _outcome(self, number: int, files: "Files") -> dict[str, Any]:
        job = self.sweep.jobs[number]
        outcome: dict[str, Any] = {"job": list(job.words), "status": FINISHED, "exit_code": 0}
        began = time.monotonic()
        try:
            if job.error is not None:
                raise job.error
            with told(lambda step, steps: files.tell(number, step, steps)):
                stage = self.sweep.stage
                result = stage.run(job.settings) if job.data is None else stage.run(job.settings, job.data)
            outcome |= {"result": str(getattr(result, "folder", result)), **numbers_of(result)}
            if job.forecast is not None and job.forecast.branches:
                outcome["branches"] = [str(folder) for folder in job.forecast.branches]
        except MaquetteError as error:
            outcome |= {"status": FAILED, "exit_code": error.exit_code, "error": str(error)}
        except Exception as error:
            outcome |= {"status": FAILED, "exit_code": 1, "error": f"{type(error).__name__}: {error}"}
        if "error" in outcome:
            say(f"failed: {outcome['error']}")
        return outcome | {"seconds": round(time.monotonic() - began, 3)}


class Files:
    """Where the jobs of a sweep leave what."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stop = folder / "stop"

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
        return {int(path.stem): json.loads(path.read_text()) for path in sorted((self.folder / "jobs").glob("*.json"))}

    def in_progress(self) -> dict[int, dict[str, Any]]:
        """The jobs that have begun and not ended."""
        found = {}
        for path in (self.folder / "running").glob("*.json"):
            with contextlib.suppress(OSError, ValueError):  # it ended just now
                found[int(path.stem)] = json.loads(path.read_text())
        return found

    def clear(self) -> None:
        """Removes what an earlier launch left, but for the logs."""
        for path in (*self.folder.glob("jobs/*.json"), *self.folder.glob("running/*"), self.stop):
            path.unlink(missing_ok=True)


def numbers_of(result: Any) -> dict[str, Any]:
    """What a run's record says in numbers; nothing for other results."""
    names = ("validation_loss", "bits_per_byte", "training_loss", "tokens_per_second", "loss_spikes")
    return {name: value for name in names if isinstance(value := getattr(result, name, None), int | float)}


@contextlib.contextmanager
def _slot(files: Files, count: int | None) -> Iterator[None]:
    """Holds one of `count` locks; waits while all are held, unless the sweep is being stopped."""
    if count is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        (files.folder / "slots").mkdir(parents=True, exist_ok=True)
        handles = [stack.enter_context((files.folder / "slots" / str(slot)).open("w")) for slot in range(count)]
        while not any(map(_took, handles)) and not files.stop.exists():
            time.sleep(_LOOK)
        yield


def _took(handle: TextIO) -> bool:
    """Whether this process holds the lock now; it lets go of it by closing the file."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _following(parent: int) -> Iterator[None]:
    """A worker process saves and ends when the sweep's own process is gone: nobody would know of it.

    A process that was not started by the sweep's (Slurm's, or submitit's) lives on.
    """
    if os.getppid() != parent:
        yield
        return
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        done.set()


@contextlib.contextmanager
def _speaking_to(log: Path) -> Iterator[None]:
    """What a job says goes to its log: many jobs at once would talk over each other."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file, contextlib.redirect_stderr(file):
        yield
