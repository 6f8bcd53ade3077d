"""Two training loops in two processes that take turns: each goes on by one step when it is asked, and says how long.

A loop calls `Turns.step_done` after every optimiser step (or iteration). What it then does until its next step is
done is one turn: data, forward and backward passes, optimiser, and whatever its trainer does around them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


class Turns:
    """The side of the loop. Its trainer's own prints go to standard error from now on."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._begun: tuple[float, float] | None = None

    def step_done(self) -> None:
        """Reports the step that was asked for, and waits to be asked again. The first one is told as ready."""
        if self._begun is None:
            self._say([0.0, 0.0])
        else:
            wall, processor = self._begun
            self._say([time.perf_counter() - wall, time.process_time() - processor])
        if not sys.stdin.readline():
            os._exit(0)  # the other side has what it wants
        self._begun = time.perf_counter(), time.process_time()

    def _say(self, seconds: list[float]) -> None:
        self._answers.write(json.dumps(seconds) + "\n")
        self._answers.flush()


class Loop:
    """The side that asks: a process, and the seconds (wall clock, processor) of each step."""

    def __init__(self, command: Sequence[str], path: Path | None, log: Path) -> None:
        """`path`: a folder to import from before the installed packages. `log`: where what the loop prints goes."""
        environment = dict(os.environ, TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        if path is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")]).rstrip(":")
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        self._answer()

    def step(self) -> tuple[float, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> tuple[float, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("\n".join(["", *self._log.read_text().splitlines()[-12:], f"It ended early; {self._log}"]))
        wall, processor = json.loads(line)
        return wall, processor
