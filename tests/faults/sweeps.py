"""Sweeps whose parent or one of whose workers is killed, and runs of two processes whose launcher or one of whose
ranks is: the processes that are left end by themselves, the command run again makes what is missing and only that, and
the results are those of a command that nobody killed."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.faults.kills import leftovers
from tests.faults.lines import results
from tests.faults.record import Outcome

from maquette.artifacts.files import listed

KINDS = (("basic", "parent"), ("joblib", "parent"), ("joblib", "worker"), ("ranks", "parent"), ("ranks", "worker"))
"""Launchers of a sweep, or one run of two processes; and who is killed."""

PATIENCE = 60.0
"""Seconds in which what was left alone must have ended, on a busy machine."""


class Sweeps:
    """Four jobs in `outputs`, which holds their data, and one run by two ranks. `root` is for copies of it."""

    def __init__(self, root: Path, outputs: Path, line: list[str], kinds: Sequence[tuple[str, str]] = KINDS) -> None:
        self.root, self.outputs = root, root / "outputs"
        root.mkdir()
        shutil.copytree(outputs, root / "before", symlinks=True, ignore=shutil.ignore_patterns("runs", "sweeps"))
        rest = [word for word in line if not word.startswith(("hydra/launcher", "size="))]
        sweep = [*rest, "size=5k,7k", "seed=1,2"]
        self.lines = {
            "basic": [*sweep, "hydra/launcher=basic"],
            "joblib": [*sweep, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
            "ranks": [*(word for word in rest if word != "-m"), "size=5k", "tokens=20k", "trainer=ddp",
                      "trainer.accelerator=cpu"],
        }  # fmt: skip
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, str]] = {}
        for launcher in dict.fromkeys(launcher for launcher, _ in kinds):
            self._begin()
            began = time.monotonic()
            status, output = self._finish(self._start(launcher, "unkilled"))
            if status:
                raise RuntimeError(f"a sweep on {launcher} fails undisturbed: {output[-2000:]}")
            self.seconds[launcher] = time.monotonic() - began
            self.expected[launcher] = self._results()

    def trial(self, launcher: str, victim: str, numbers: random.Random) -> Outcome:
        """One kill at a random moment, and the command again."""
        self._begin()
        mark = str(uuid.uuid4())
        parent = self._start(launcher, mark)
        time.sleep(self.seconds[launcher] * numbers.uniform(0.05, 0.95))
        if victim == "worker":
            worker = self._worker(mark, parent, numbers)
            if worker is None:
                parent.kill()
                parent.wait()
                return 0, []
            os.kill(worker, signal.SIGKILL)
            status, output = self._finish(parent)
            lost = self._left(mark)
            if launcher == "joblib":  # the job that died is launched once more
                return 1, lost + ([f"exit {status}: {output[-400:]}"] if status else []) + self._different(launcher)
            if status != 1 or "Run the command again" not in output:
                lost.append(f"a rank was killed: exit {status}: {output[-400:]}")
        else:
            parent.kill()
            parent.wait()
            lost = self._left(mark)
        finished = {path: path.stat().st_mtime_ns for path in self._finished()}
        status, output = self._finish(self._start(launcher, mark))
        if status:
            return 1, [*lost, f"the second time: exit {status}: {output[-400:]}"]
        lost += [f"{path.parent.name} is made again" for path, at in finished.items() if path.stat().st_mtime_ns != at]
        return 1, lost + self._different(launcher)

    def _begin(self) -> None:
        shutil.rmtree(self.outputs, ignore_errors=True)
        shutil.copytree(self.root / "before", self.outputs, symlinks=True)

    def _start(self, launcher: str, mark: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "maquette", *self.lines[launcher], f"outputs={self.outputs}"]
        environment = {**os.environ, "MAQUETTE_FAULTS": mark}
        with (self.root / "log").open("w") as file:
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=self.root)

    def _finish(self, parent: "subprocess.Popen[bytes]") -> tuple[int, str]:
        try:
            status = parent.wait(600)
        except subprocess.TimeoutExpired:
            parent.kill()
            return 124, "still there after ten minutes"
        return status, (self.root / "log").read_text()

    def _worker(self, mark: str, parent: "subprocess.Popen[bytes]", numbers: random.Random) -> int | None:
        """One of the processes that joblib or the run has started, waited for; None where the command ends before."""
        while parent.poll() is None:
            if workers := [process for process in marked(mark) if _is_worker(process, parent.pid)]:
                return numbers.choice(sorted(workers))
            time.sleep(0.05)
        return None

    def _left(self, mark: str) -> list[str]:
        until = time.monotonic() + PATIENCE
        while (left := marked(mark)) and time.monotonic() < until:
            time.sleep(0.2)
        for process in left:
            os.kill(process, signal.SIGKILL)
        return [f"{len(left)} processes are left after {PATIENCE:g} s"] if left else []

    def _finished(self) -> list[Path]:
        return [
            path
            for path in listed(self.outputs, "runs/*/run.json")
            if json.loads(path.read_text()).get("status") == "finished"
        ]

    def _results(self) -> dict[str, str]:
        return {name: digest for name, digest in results(self.outputs).items() if not name.startswith("sweeps/")}

    def _different(self, launcher: str) -> list[str]:
        try:
            actual = self._results()
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        expected = self.expected[launcher]
        others = sorted(name for name in {*actual, *expected} if actual.get(name) != expected.get(name))
        left = [str(path.relative_to(self.outputs)) for path in leftovers(self.outputs)]
        return [f"other results: {others[:4]}"] * bool(others) + [f"left for ever: {left[:4]}"] * bool(left)


def marked(mark: str) -> list[int]:
    """Processes that have inherited the mark."""
    processes = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MAQUETTE_FAULTS={mark}".encode() in (place / "environ").read_bytes():
                processes.append(int(place.name))
    return processes


def _is_worker(process: int, parent: int) -> bool:
    with contextlib.suppress(OSError):
        place = Path(f"/proc/{process}")
        command = (place / "cmdline").read_bytes()
        started_by = int((place / "stat").read_text().rpartition(")")[2].split()[1])
        worker = b"loky" in command or b"spawn_main" in command
        return started_by == parent and worker and b"resource_tracker" not in command
    return False
