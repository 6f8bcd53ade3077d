"""What a person sees while waiting: a bar with counts, speed and time left; plain lines where there is no terminal."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from maquette.artifacts.errors import without_secrets

console = Console(stderr=True, highlight=False)
"""Progress and remarks go to standard error; standard output is for results."""


listeners: list[Callable[[int, int], None]] = []
"""Who shows how far runs are, where those show nothing of their own; the last one counts (`report_to`)."""


@contextlib.contextmanager
def report_to(listener: Callable[[int, int], None]) -> Iterator[None]:
    """Within the block, runs show nothing of their own: `listener(step, steps)` is called with how far they are."""
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.pop()


def say(message: str) -> None:
    """A remark to the person at the terminal."""
    console.print(without_secrets(message), markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress(description: str, total: float | None, *, unit: str = "") -> Iterator[Callable[[float], None]]:
    """Shows progress towards `total`; yields `advance(amount)`. Without a terminal: a line every ten seconds."""
    if console.is_terminal:
        columns = [
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(),
            TextColumn(unit), *([TimeElapsedColumn()] if console.width >= 100 else []), TextColumn("left"),
            TimeRemainingColumn(),
        ]  # fmt: skip
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda amount: bar.advance(task, amount)
        return
    start = last = time.monotonic()
    done = 0.0

    def advance(amount: float) -> None:
        nonlocal done, last
        done += amount
        now = time.monotonic()
        if now - last < 10:
            return
        last = now
        share = f" of {total:,.0f} ({done / total:.0%})" if total else ""
        left = f", {(now - start) * (total - done) / done:.0f} s left" if total and done else ""
        print(f"{description}: {done:,.0f}{share} {unit}{left}", file=sys.stderr, flush=True)

    yield advance


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    for size, unit, smaller, name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s"
