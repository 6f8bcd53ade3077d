"""A thread that carries what a run records to the store about once a second, so that a training step never waits.

A store that fails in mid-run (a full disk, a server that went away) does not stop training, and nothing is dropped
silently: what could not be written is kept and tried again, the person is told once, and again at the end.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from maquette.artifacts.progress import say
from maquette.tracking.sinks import Point, Sink

INTERVAL = 1.0
"""Seconds between two writes."""

LONGEST_PAUSE = 30.0
"""Seconds between two tries while the store fails: the pause doubles up to this."""

CAPACITY = 1_000_000
"""Points kept while the store fails (about 200 MB); beyond it the oldest are dropped, and counted."""

TRIES = 3
"""How often what is left is tried at the end."""

Action = Callable[[], None]


class Writer:
    """Buffers points and actions (such as setting tags) and gives them to the store from a thread of its own."""

    def __init__(
        self, sink: Sink, store: str, *, interval: float = INTERVAL, tell: Callable[[str], None] = say
    ) -> None:
        """`store` names the store in messages, which go to `tell`."""
        self._sink, self._store, self._interval, self._tell = sink, store, interval, tell
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._fresh: list[Point] = []
        self._actions: deque[tuple[str, Action]] = deque()
        self._given = self._settled = self._failures = self._dropped = 0
        self._unwritten: list[Point] = []
        self._refused: list[str] = []
        self._closing = self._warned = False
        self._thread = threading.Thread(target=self._run, name="maquette-tracking", daemon=True)
        self._thread.start()

    def add_points(self, points: Sequence[Point]) -> None:
        """Takes points; does not wait for the store."""
        with self._changed:
            self._fresh.extend(points)
            self._given += len(points)

    def add_action(self, name: str, action: Action) -> None:
        """Takes a call to the store, called `name` in messages; does not wait for the store."""
        with self._changed:
            self._actions.append((name, action))
            self._given += 1

    def flush(self, timeout: float = 10.0) -> bool:
        """Waits until everything taken so far is written; False where the store fails or takes longer."""
        with self._changed:
            given, failures = self._given, self._failures
            self._wake.set()
            self._changed.wait_for(lambda: self._settled >= given or self._failures > failures, timeout)
            return self._settled >= given

    def close(self) -> list[str]:
        """Writes what is left and ends the thread. Returns what could not be recorded, a line each."""
        for _ in range(TRIES):
            if self.flush(timeout=30.0):
                break
        self._closing = True
        self._wake.set()
        self._thread.join(timeout=30.0)
        lost = [*self._refused, *(name for name, _ in self._actions)]
        if missing := self._dropped + len(self.unwritten):
            lost.append(f"{missing:,} points of metrics")
        return lost

    @property
    def unwritten(self) -> list[Point]:
        """The points that the store has not taken yet."""
        with self._changed:
            return [*self._unwritten, *self._fresh]

    def _run(self) -> None:
        pause = self._interval
        while not self._closing:
            self._wake.wait(pause)
            self._wake.clear()
            succeeded = [self._attempt(self._write_points), self._attempt(self._perform_actions)]
            pause = self._interval if all(succeeded) else min(LONGEST_PAUSE, 2 * pause)
        self._sink.close()

    def _attempt(self, work: Action) -> bool:
        try:
            work()
        except Exception as error:
            if not self._warned:
                self._warned = True
                self._tell(
                    f"warning: {self._store} does not take the run's record ({_first_line(error)}). Training goes on; "
                    "what is not recorded is kept and tried again."
                )
            with self._changed:
                self._failures += 1
                self._changed.notify_all()
            return False
        return True

    def _write_points(self) -> None:
        with self._changed:
            points, self._fresh = [*self._unwritten, *self._fresh], []
            excess = max(0, len(points) - CAPACITY)
            self._dropped += excess
            self._unwritten = points[excess:]
            self._settled += excess
        if not self._unwritten:
            return
        self._sink.write(self._unwritten)
        with self._changed:
            self._settled += len(self._unwritten)
            self._unwritten = []
            self._changed.notify_all()

    def _perform_actions(self) -> None:
        failure: Exception | None = None
        again = []
        with self._changed:
            waiting, self._actions = self._actions, deque()
        for name, action in waiting:
            try:
                action()
            except Exception as error:
                if _is_hopeless(error):
                    self._refused.append(f"{name} ({_first_line(error)})")
                else:
                    failure = error
                    again.append((name, action))
                    continue
            with self._changed:
                self._settled += 1
                self._changed.notify_all()
        if failure is not None:
            with self._changed:
                self._actions.extendleft(reversed(again))
            raise failure


def _is_hopeless(error: Exception) -> bool:
    """Whether trying again would be in vain: a file that is gone, a value that MLflow does not take."""
    return isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].removesuffix(".")
