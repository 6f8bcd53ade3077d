"""The thread between a run and its store: nothing waits, nothing is lost silently."""

import threading
import time

from maquette.tracking.sinks import Point
from maquette.tracking.writer import Writer


class Memory:
    """A sink that can be made to fail."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()
        self.closed = False

    def write(self, points: list[Point]) -> None:
        self.gate.wait()
        if self.broken:
            raise OSError("No space left on device")
        self.points.extend(points)

    def close(self) -> None:
        self.closed = True


def point(step: int) -> Point:
    return Point("loss", 1.0, 0, step)


def test_points_arrive_in_order_and_taking_them_does_not_wait() -> None:
    sink = Memory()
    sink.gate.clear()
    writer = Writer(sink, "the store", interval=0.001)
    for step in range(100):
        writer.add_points([point(step)])
    sink.gate.set()
    assert writer.close() == []
    assert [p.step for p in sink.points] == list(range(100))
    assert sink.closed


def test_a_failure_is_told_once_and_made_good_when_the_store_recovers() -> None:
    sink, told = Memory(), []
    writer = Writer(sink, "the store", interval=0.001, tell=told.append)
    sink.broken = True
    writer.add_points([point(0)])
    assert not writer.flush()
    writer.add_points([point(1)])
    assert not writer.flush()
    sink.broken = False
    assert writer.flush()
    assert [p.step for p in sink.points] == [0, 1]
    assert writer.close() == []
    assert len(told) == 1
    assert "No space left" in told[0]


def test_what_is_never_taken_is_counted_at_the_end() -> None:
    sink = Memory()
    sink.broken = True
    writer = Writer(sink, "the store", interval=0.001, tell=lambda _: None)
    writer.add_points([point(0), point(1)])
    assert writer.close() == ["2 points of metrics"]
    assert writer.unwritten == [point(0), point(1)]


def test_an_action_is_tried_again_then_named() -> None:
    calls = []

    def flaky() -> None:
        calls.append(time.monotonic())
        if len(calls) < 2:
            raise OSError("busy")

    def hopeless() -> None:
        raise FileNotFoundError("figure.png")

    writer = Writer(Memory(), "the store", interval=0.001, tell=lambda _: None)
    writer.add_action("tags", flaky)
    writer.add_action("the artifact figure.png", hopeless)
    assert writer.close() == ["the artifact figure.png (figure.png)"]
    assert len(calls) == 2


def test_an_action_that_always_fails_is_named_at_the_end_and_others_go_through() -> None:
    done = []

    def failing() -> None:
        raise OSError("the server is away")

    sink = Memory()
    writer = Writer(sink, "the store", interval=0.001, tell=lambda _: None)
    writer.add_action("tags", failing)
    writer.add_action("parameters", lambda: done.append(True))
    writer.add_points([point(0)])
    assert writer.close() == ["tags"]
    assert done == [True]
    assert sink.points == [point(0)]
