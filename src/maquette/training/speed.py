"""How fast training goes, and where a step's time goes: data, forward and backward, optimiser."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch


class TimedBatches:
    """Passes batches on, and adds up the time spent waiting for them. Its state is that of the batches."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        batches: Iterable[Any] = self.batches
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.seconds += time.perf_counter() - start
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state)


@dataclass(frozen=True)
class Speed:
    """Mean seconds of a step since the last measurement, and its parts."""

    steps: int
    seconds: float
    data: float
    model: float
    optimizer: float


class Stopwatch:
    """Times steps between `start` and `take`; pauses (validation, saving) are left out by calling `start` again.

    A GPU computes behind the program's back, so there the optimiser's share is only known where the program waits for
    it: `take` is called at the end of a step that has just been waited for, and that step's share stands for all.
    """

    def __init__(self, batches: TimedBatches, device: torch.device) -> None:
        self._batches = batches
        self._wait = device.type == "cuda"
        self._device = device
        self._steps = 0
        self._seconds = self._optimizer = self._data = 0.0
        self._backward_end = 0.0
        self.start()

    def start(self) -> None:
        """The next step begins now."""
        self._step_start = time.perf_counter()
        self._data_start = self._batches.seconds

    def backward_done(self, last: bool) -> None:
        """Gradients are there; `last`: the step at whose end `take` will be called."""
        if self._wait and last:
            torch.cuda.synchronize(self._device)
        self._backward_end = time.perf_counter()

    def step_done(self, last: bool) -> None:
        """Weights are updated."""
        if self._wait and last:
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._steps += 1
        self._seconds += now - self._step_start
        self._data += self._batches.seconds - self._data_start
        if self._wait:
            self._optimizer = (now - self._backward_end) * self._steps
        else:
            self._optimizer += now - self._backward_end
        self._step_start, self._data_start = now, self._batches.seconds

    def take(self) -> Speed:
        """Means since the last call."""
        steps = max(1, self._steps)
        seconds, data, optimizer = self._seconds / steps, self._data / steps, self._optimizer / steps
        speed = Speed(self._steps, seconds, data, max(0.0, seconds - data - optimizer), optimizer)
        self._steps = 0
        self._seconds = self._optimizer = self._data = 0.0
        return speed
