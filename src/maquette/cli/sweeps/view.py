"""One view of a whole sweep or study while it runs: done, running, left, FLOPs done, time left; and a line for each job
that ends.

It reads the files in which jobs tell how far they are (work.py), so it does not matter in which processes they run.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.text import Text

from maquette.artifacts.errors import StageError
from maquette.artifacts.progress import duration
from maquette.cli.sweeps.work import FINISHED, Files

_LOOK = 0.5
_LINES = 30.0
"""Seconds between two lines where there is no terminal."""


@dataclass(frozen=True)
class Expected:
    """A job as the view knows it: its title, FLOPs and seconds (0 where nobody knows)."""

    title: str
    flops: float
    seconds: float


@dataclass(frozen=True)
class State:
    """A sweep at one moment. `flops` and `seconds` are what is done of them (with shares of the running jobs), the
    seconds as they were expected."""

    done: int
    failed: int
    running: dict[int, float]
    flops: float
    seconds: float


def state_of(files: Files, jobs: Sequence[Expected]) -> tuple[State, dict[int, dict]]:
    """The state that the files tell, and the outcomes so far."""
    outcomes = files.outcomes()
    shares = {
        number: job["step"] / job["steps"] if job["steps"] else 0.0
        for number, job in files.in_progress().items()
        if number not in outcomes
    }
    share_of = {**shares, **dict.fromkeys(outcomes, 1.0)}
    state = State(
        done=sum(outcome["status"] == FINISHED for outcome in outcomes.values()),
        failed=sum(outcome["status"] != FINISHED for outcome in outcomes.values()),
        running=dict(sorted(shares.items())),
        flops=sum(share * jobs[number].flops for number, share in share_of.items()),
        seconds=sum(share * jobs[number].seconds for number, share in share_of.items()),
    )
    return state, outcomes


def time_left(jobs: Sequence[Expected], state: State, before: State, elapsed: float) -> float | None:
    """Seconds to go, by how fast what was expected to take so long has gone since `before`; None where nobody knows.

    Jobs that failed count as done. Where the seconds of one are unknown FLOPs stand for them, and jobs where those are
    too.
    """
    measures = (
        ([job.seconds for job in jobs], state.seconds, before.seconds),
        ([job.flops for job in jobs], state.flops, before.flops),
        ([1.0] * len(jobs), state.done + state.failed, before.done + before.failed),
    )
    for each, now, then in measures:
        if all(0 < one < math.inf for one in each):
            return elapsed * max(0.0, sum(each) - now) / (now - then) if now > then else None
    return None


class Bars(Progress):
    """A bar for the whole and one for each running job, each with the time left where it is known; below them a line on
    the whole, of which a narrow terminal cuts the end. All bars fit into 80 columns."""

    summary = ""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TaskProgressColumn())
        super().__init__(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True,
                         redirect_stderr=False, redirect_stdout=False, refresh_per_second=2)  # fmt: skip

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.summary, no_wrap=True, overflow="ellipsis")


class View:
    """Looks at a sweep's files now and then, and says what has changed."""

    def __init__(self, name: str, jobs: Sequence[Expected], files: Files, console: Console) -> None:
        self.name, self.jobs, self.files, self.console = name, jobs, files, console
        self._before, seen = state_of(files, jobs)
        self._seen = set(seen)
        self._began = self._reported = time.monotonic()
        self._started = False
        self._rows: dict[int, TaskID] = {}

    def refresh(self, bar: Bars | None, task: TaskID | None) -> None:
        state, outcomes = state_of(self.files, self.jobs)
        for number in sorted(outcomes.keys() - self._seen):
            self._seen.add(number)
            self._say_ended(number, outcomes[number])
        if not self._started:  # the clock runs from the first step on: workers spend seconds on their imports
            self._began, self._started = time.monotonic(), state.flops > self._before.flops
        elapsed = time.monotonic() - self._began
        left = time_left(self.jobs, state, self._before, elapsed) if elapsed >= _LOOK else None
        if bar is not None and task is not None:
            self._show(bar, task, state, left)
        elif time.monotonic() - self._reported >= _LINES:
            self._reported = time.monotonic()
            self._print(f"{self.name}: {self._line(state)}{self._flops(state)}{_left(left)}")

    def _line(self, state: State) -> str:
        waiting = len(self.jobs) - state.done - state.failed - len(state.running)
        failed = f", {state.failed} failed" if state.failed else ""
        return f"{state.done} done{failed}, {len(state.running)} running, {waiting} left"

    def _flops(self, state: State) -> str:
        total = sum(job.flops for job in self.jobs)
        return f", {state.flops:.2g} of {total:.2g} FLOPs ({state.flops / total:.0%})" if total else ""

    def _show(self, bar: Bars, task: TaskID, state: State, left: float | None) -> None:
        total = sum(job.flops for job in self.jobs)
        done = state.flops / total if total else (state.done + state.failed) / max(1, len(self.jobs))
        bar.summary = f"{self._line(state)}{self._flops(state)}"
        bar.update(task, completed=done, left=_left(left).removeprefix(", "))
        for number, share in state.running.items():
            if number not in self._rows:
                self._rows[number] = bar.add_task(f"  {self.jobs[number].title}", total=1.0, left="")
            bar.update(self._rows[number], completed=share)
        for number in self._rows.keys() - state.running.keys():
            bar.remove_task(self._rows.pop(number))

    def _say_ended(self, number: int, outcome: dict) -> None:
        place = f"[{number + 1}/{len(self.jobs)}] {self.jobs[number].title}"
        if outcome["status"] != FINISHED:
            self._print(f"{place} failed: {outcome['error']}")
            return
        loss = outcome.get("validation_loss")
        loss_text = f"validation loss {loss:.4f}, " if loss is not None else ""
        self._print(f"{place}: {loss_text}{duration(outcome['seconds'])}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", {duration(seconds)} left"


@contextlib.contextmanager
def viewed(name: str, jobs: Sequence[Expected], files: Files) -> Iterator[None]:
    """Shows the jobs while the block runs: a bar at a terminal, lines elsewhere."""
    # A console of its own: within the block a job in this process speaks to its log.
    console = Console(file=sys.stderr, highlight=False)
    view, done = View(name, jobs, files, console), threading.Event()
    with contextlib.ExitStack() as stack:
        bar = task = None
        if console.is_terminal:
            bar = stack.enter_context(Bars(console))
            task = bar.add_task(name, total=1.0, left="")

        def watch() -> None:
            while not done.wait(_LOOK):
                with contextlib.suppress(OSError, ValueError, StageError):  # the next look may do better
                    view.refresh(bar, task)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            view.refresh(bar, task)
