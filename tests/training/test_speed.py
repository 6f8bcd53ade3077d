"""Where a step's time goes, with a clock that we wind ourselves."""

from collections.abc import Iterator

import pytest
import torch

from maquette.training.callbacks import throughput as speed
from maquette.training.callbacks.throughput import Stopwatch, TimedBatches


class Batches:
    """Three batches, each of which takes two seconds to come."""

    def __init__(self, clock: list[float]) -> None:
        self.clock, self.position = clock, 0

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        for number in range(self.position, 3):
            self.clock[0] += 2
            self.position += 1
            yield number

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def test_parts_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    batches = TimedBatches(Batches(clock))
    watch = Stopwatch(batches, torch.device("cpu"))
    for number in batches:
        clock[0] += 5 + number  # forward and backward
        watch.backward_done(last=False)
        clock[0] += 1
        watch.step_done(last=False)
        clock[0] += 100  # a pause
        watch.start()
    measured = watch.take()
    assert (measured.steps, measured.data, measured.model, measured.optimizer) == (3, 2, 6, 1)
    assert measured.seconds == 9
    assert watch.take().steps == 0


def test_state_is_that_of_the_batches() -> None:
    batches = TimedBatches(Batches([0.0]))
    iterator = iter(batches)
    assert (next(iterator), len(batches)) == (0, 3)
    resumed = TimedBatches(Batches([0.0]))
    resumed.load_state_dict(batches.state_dict())
    assert list(resumed) == [1, 2]
