"""A thread that carries what a run records to the store, so that no training step waits for it.

A store that fails in mid-run (locked, full, a server that went away) does not stop training, and nothing is dropped
silently: what could not be written is kept and tried again, the user is warned once, and again at the end. MLflow's own
asynchronous logging (`synchronous=False`) never tries again, and makes a call to the store for each step.

A call to MLflow's SQLite store takes 4 ms of processor time, and each point in it 0.05 ms. So points are written every
five seconds, many at a time (benchmarks/tracking_overhead.py).
"""

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from maquette.artifacts.progress import say

INTERVAL = 5.0
"""Seconds between two writes."""

LONGEST_PAUSE = 30.0
"""Seconds between two tries while the store fails: the pause doubles up to this."""

BATCH = 1000
"""Points in one write: the most that MLflow takes in one call."""

TRIES = 3
"""How often what is left is tried at the end, `INTERVAL` apart."""

LONGEST_LOCK = 300.0
"""Seconds to wait for a store that another process holds locked, before a run begins and at its end."""


class Point(NamedTuple):
    """One value of a metric; `timestamp` in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


class Call(NamedTuple):
    """A call to the store, with its name in messages and the points in it."""

    name: str
    run: Callable[[], None]
    points: Sequence[Point] = ()


class Buffer:
    """Takes points and calls to the store (such as setting tags), and makes them in a thread, which lives as long as
    something waits."""

    def __init__(
        self,
        write: Callable[[Sequence[Point]], None],
        store: str,
        *,
        interval: float = INTERVAL,
        notify: Callable[[str], None] = say,
    ) -> None:
        """`write` takes points to the store, or raises; `store` is its name in messages, which go to `notify`."""
        self._write, self._store, self._interval, self._notify = write, store, interval, notify
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._points: list[Point] = []
        self._waiting: list[Call] = []
        self._refused: list[Call] = []
        self._failures = 0
        self._last_failure: Exception | None = None
        self._warned = False
        self._thread: threading.Thread | None = None
        _BUFFERS.add(self)

    def add_points(self, points: Sequence[Point]) -> None:
        """Takes points; does not wait for the store."""
        with self._changed:
            self._points.extend(points)
            self._ensure_thread()

    def add_call(self, name: str, run: Callable[[], None]) -> None:
        """Takes a call to the store; does not wait for it."""
        with self._changed:
            self._waiting.append(Call(name, run))
            self._ensure_thread()

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits until everything is in the store; False where the store fails or takes longer."""
        with self._changed:
            failures = self._failures
            self._wake.set()
            self._changed.wait_for(lambda: self._is_empty() or self._failures > failures, timeout)
            return self._is_empty()

    def drain(self) -> tuple[list[str], list[Point]]:
        """Writes what is left, and gives up what the store does not take: a line for each loss, and the lost points."""
        until, tries = time.monotonic() + LONGEST_LOCK, 1
        while not self.flush(timeout=30.0):
            if tries >= TRIES and (not is_locked(self._last_failure) or time.monotonic() > until):
                break
            tries += 1
            time.sleep(self._interval)
        with self._changed:
            lost = [*self._refused, *self._waiting]
            points = [*(point for call in lost for point in call.points), *self._points]
            self._refused, self._waiting, self._points = [], [], []
        lines = [call.name for call in lost if not call.points]
        return [*lines, f"{len(points):,} points of metrics"] if points else lines, points

    def _is_empty(self) -> bool:
        return not self._points and not self._waiting

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="maquette-tracking", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = self._interval
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            failure = self._make_calls()
            pause = self._interval if failure is None else min(LONGEST_PAUSE, 2 * pause)
            if failure is not None and not self._warned:
                self._warned = True
                self._notify(
                    f"warning: {self._store} does not take the run's record ({_first_line(failure)}). Training"
                    " continues; what is not recorded is kept and tried again."
                )
            with self._changed:
                self._failures += failure is not None
                self._last_failure = failure
                self._changed.notify_all()
                if self._is_empty():
                    self._thread = None
                    return

    def _make_calls(self) -> Exception | None:
        """Makes each waiting call once; those that fail wait for the next time. Returns the last failure."""
        failure = None
        with self._changed:
            for start in range(0, len(self._points), BATCH):
                batch = self._points[start : start + BATCH]
                self._waiting.append(Call("points", partial(self._write, batch), batch))
            self._points = []
            calls = list(self._waiting)
        for call in calls:
            refused = None
            try:
                call.run()
            except Exception as error:
                if not _is_permanent(error):
                    failure = error
                    continue
                refused = call._replace(name=f"{call.name} ({_first_line(error)})")
            with self._changed:
                if any(call is waiting for waiting in self._waiting):  # not given up meanwhile
                    self._waiting = [waiting for waiting in self._waiting if waiting is not call]
                    self._refused.extend([refused] if refused else [])
        return failure


_BUFFERS: "weakref.WeakSet[Buffer]" = weakref.WeakSet()


@atexit.register
def _flush_buffers() -> None:
    """Writes what was logged after a run's end, or in one that nobody ended."""
    for buffer in list(_BUFFERS):
        buffer.flush()


def is_locked(error: Exception | None) -> bool:
    """Whether SQLite says that another process is writing, which passes."""
    return error is not None and "database is locked" in str(error)


def _is_permanent(error: Exception) -> bool:
    """Whether trying again would be in vain: a file that is gone, a value that MLflow does not take."""
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].removesuffix(".")
