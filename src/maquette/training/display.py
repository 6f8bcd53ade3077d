"""What a person sees of training: a bar with loss, speed and time left; without a terminal a line now and then."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from maquette.artifacts.progress import console, duration, say

_REFRESH = 0.25
"""Seconds between two updates of the bar."""

_LINES = 15.0
"""Seconds between two lines where there is no terminal."""


_TOLD = 0.5
"""Seconds between two reports to somebody who shows many runs at once."""

_listeners: list[Callable[[int, int], None]] = []


@contextlib.contextmanager
def told(listener: Callable[[int, int], None]) -> Iterator[None]:
    """Within the block, runs show nothing of their own: `listener(step, steps)` is told how far they are."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.pop()


class Display:
    """Shows a run of `steps` steps of `batch_tokens` tokens. Calls are cheap: most of them only look at the clock."""

    def __init__(
        self, name: str, steps: int, batch_tokens: int, *, first_step: int = 0, bar: Progress | None = None
    ) -> None:
        self._name, self._steps, self._batch_tokens, self._bar = name, steps, batch_tokens, bar
        self._shown = time.monotonic() - (0 if bar is None else _REFRESH)
        self._validation = ""
        self._task = None
        if bar is not None:
            self._task = bar.add_task(name, total=steps, completed=first_step, loss="", speed="", left="")

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        """After step `step`."""
        now = time.monotonic()
        if now - self._shown < (_REFRESH if self._bar is not None else _LINES):
            return
        self._shown = now
        speed, left = "", ""
        if tokens_per_second:  # known after the first steps, which are slow
            speed = f"{tokens_per_second:,.0f} tokens/s"
            left = f"{duration((self._steps - step) * self._batch_tokens / tokens_per_second)} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                completed=step,
                loss=f"loss {loss:.3f}{self._validation}",
                speed=speed,
                left=left,
            )
        else:
            say(
                f"{self._name}: step {step:,} of {self._steps:,} ({step / self._steps:.0%}), "
                + ", ".join(part for part in (f"loss {loss:.3f}{self._validation}", speed, left) if part)
            )

    def validated(self, loss: float | None) -> None:
        """The newest validation loss stands beside the training loss."""
        self._validation = "" if loss is None else f" (validation {loss:.3f})"

    def remark(self, message: str) -> None:
        """A line that stays."""
        say(f"{self._name}: {message}")


@contextlib.contextmanager
def display(
    name: str, steps: int, batch_tokens: int, *, first_step: int = 0, visible: bool = True
) -> Iterator[Display]:
    """A `Display` for the block; the bar is gone afterwards. Only one process of several shows one."""
    if not visible:
        yield Silent(name, steps, batch_tokens)
        return
    if _listeners:
        yield Told(name, steps, batch_tokens, first_step=first_step)
        return
    if not console.is_terminal:
        yield Display(name, steps, batch_tokens, first_step=first_step)
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    ]
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as bar:
        yield Display(name, steps, batch_tokens, first_step=first_step, bar=bar)


class Silent(Display):
    """Shows nothing: for processes beside the first."""

    def update(self, step: int, loss: float, tokens_per_second: float) -> None: ...

    def remark(self, message: str) -> None: ...


class Told(Display):
    """Tells the listener instead of showing."""

    def __init__(self, name: str, steps: int, batch_tokens: int, *, first_step: int = 0) -> None:
        super().__init__(name, steps, batch_tokens)
        _listeners[-1](first_step, steps)

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        now = time.monotonic()
        if now - self._shown >= _TOLD or step == self._steps:
            self._shown = now
            _listeners[-1](step, self._steps)
