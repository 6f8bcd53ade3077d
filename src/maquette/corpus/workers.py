"""Workers that go through a stream of items and give the results back in order, a bounded number at a time."""

import collections
import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from maquette.artifacts.errors import StageError
from maquette.artifacts.process_state import end_with

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """`map` over the `count` processes (or threads) of an executor; without one, the work is done here. What processes
    map must be picklable."""

    def __init__(self, count: int, executor: Executor | None) -> None:
        self.count = count
        self._executor = executor

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`function` of each item, in the order of the items, whichever worker is done first.

        Raises what `function` raises, and `StageError` where a worker process died.
        """
        if self._executor is None:
            yield from map(function, items)
            return
        waiting: collections.deque[Future[Result]] = collections.deque()
        remaining = iter(items)
        try:
            for item in itertools.islice(remaining, 2 * self.count):
                waiting.append(self._executor.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
                for item in itertools.islice(remaining, 1):
                    waiting.append(self._executor.submit(function, item))
        except BrokenProcessPool:
            raise StageError(
                "A worker process died, most likely for want of memory.", "Try again with fewer: corpus.workers=1."
            ) from None


@contextlib.contextmanager
def workers(count: int | None = None) -> Iterator[Workers]:
    """`count` worker processes, by default as many as there are cores for this process."""
    count = count or available_cores()
    if count == 1:
        yield Workers(1, None)
        return
    # Forking takes no time and asks nothing of the main module; where it is not safe, processes start afresh.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(count, context, initializer=_start, initargs=(os.getpid(),)) as executor:
        executor.submit(int).result()  # forks now, before anything starts threads
        try:
            yield Workers(count, executor)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def available_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start(parent: int) -> None:
    end_with(parent)  # a killed parent's workers would wait for work for ever
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    gc.disable()  # what is made here has no cycles, and syntax trees keep the collector busy for nothing


def batches(items: Iterable[Item], size: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Consecutive items in lists whose sizes add up to at least `limit` (the last one: to what is left)."""
    batch: list[Item] = []
    filled = 0
    for item in items:
        batch.append(item)
        filled += size(item)
        if filled >= limit:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch
