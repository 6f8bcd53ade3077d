"""Ctrl-C and SIGTERM during training: finish the step, save, and say how to go on."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Abandoned(BaseException):
    """A second Ctrl-C: stop at once. Not a `KeyboardInterrupt`, which Lightning answers by ending the program."""


class Interruption:
    """Whether somebody wants training to stop. Requests that follow one within a second are the same one: a terminal
    sends Ctrl-C to all processes, and a parent hands it on to its children too."""

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0

    def listen(self) -> None:
        """Takes over the signals. Does nothing outside of the main thread, which alone may do so."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested and now - self._since > 1.0:
            raise Abandoned
        if not self.requested:
            self.requested, self._since = True, now


@contextlib.contextmanager
def listening() -> Iterator[Interruption]:
    """Within the block, signals are requests; afterwards they are handled as before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    interruption = Interruption()
    interruption.listen()
    try:
        yield interruption
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
