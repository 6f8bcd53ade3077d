"""The thread between a run and its store: nothing waits, nothing is lost silently."""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from maquette.tracking.buffer import BATCH, Buffer, Point


class Memory:
    """A store that can be made to fail."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def write(self, points: Sequence[Point]) -> None:
        self.gate.wait()
        if self.broken:
            raise OSError("No space left on device")
        self.points.extend(points)


def point(step: int) -> Point:
    return Point("loss", 1.0, 0, step)


def test_points_arrive_in_order_and_taking_them_does_not_wait() -> None:
    store = Memory()
    store.gate.clear()
    buffer = Buffer(store.write, "the store", interval=0.001)
    for step in range(100):
        buffer.add_points([point(step)])
    store.gate.set()
    assert buffer.drain() == ([], [])
    assert [p.step for p in store.points] == list(range(100))


def test_the_thread_lives_while_something_waits() -> None:
    store = Memory()
    buffer = Buffer(store.write, "the store", interval=0.001)
    for step in range(2):
        buffer.add_points([point(step)])
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "maquette-tracking")
        assert buffer.flush()
        thread.join()
    assert [p.step for p in store.points] == [0, 1]


def test_no_write_has_more_points_than_mlflow_takes() -> None:
    sizes = []
    buffer = Buffer(lambda points: sizes.append(len(points)), "the store")
    buffer.add_points([point(step) for step in range(2 * BATCH + 5)])
    assert buffer.flush()
    assert sizes == [BATCH, BATCH, 5]


def test_a_failure_is_told_once_and_made_good_when_the_store_recovers() -> None:
    store, messages = Memory(), []
    buffer = Buffer(store.write, "the store", interval=0.001, notify=messages.append)
    store.broken = True
    buffer.add_points([point(0)])
    assert not buffer.flush()
    buffer.add_points([point(1)])
    assert not buffer.flush()
    store.broken = False
    assert buffer.drain() == ([], [])
    assert [p.step for p in store.points] == [0, 1]
    assert len(messages) == 1
    assert "No space left" in messages[0]


def test_what_is_never_taken_is_counted_at_the_end_and_given_back() -> None:
    store = Memory()
    store.broken = True
    buffer = Buffer(store.write, "the store", interval=0.001, notify=lambda _: None)
    buffer.add_points([point(0), point(1)])
    assert buffer.drain() == (["2 points of metrics"], [point(0), point(1)])
    assert buffer.drain() == ([], [])


def test_points_that_mlflow_refuses_do_not_keep_back_those_after_them() -> None:
    class RefusedError(Exception):
        error_code = "INVALID_PARAMETER_VALUE"

    taken: list[Point] = []

    def write(points: Sequence[Point]) -> None:
        if point(0) in points:
            raise RefusedError("no such name")
        taken.extend(points)

    buffer = Buffer(write, "the store", interval=0.001)
    buffer.add_points([point(0)])
    assert buffer.flush()
    buffer.add_points([point(1)])
    assert buffer.drain() == (["1 points of metrics"], [point(0)])
    assert taken == [point(1)]


def test_a_call_is_tried_again_then_named() -> None:
    calls = []

    def flaky() -> None:
        calls.append(time.monotonic())
        if len(calls) < 2:
            raise OSError("busy")

    def hopeless() -> None:
        raise FileNotFoundError("figure.png")

    buffer = Buffer(Memory().write, "the store", interval=0.001, notify=lambda _: None)
    buffer.add_call("tags", flaky)
    buffer.add_call("the artifact figure.png", hopeless)
    assert buffer.drain()[0] == ["the artifact figure.png (figure.png)"]
    assert len(calls) == 2


def test_a_call_that_always_fails_is_named_at_the_end_and_others_go_through() -> None:
    done = []

    def failing() -> None:
        raise OSError("the server is away")

    store = Memory()
    buffer = Buffer(store.write, "the store", interval=0.001, notify=lambda _: None)
    buffer.add_call("tags", failing)
    buffer.add_call("parameters", lambda: done.append(True))
    buffer.add_points([point(0)])
    assert buffer.drain()[0] == ["tags"]
    assert done == [True]
    assert store.points == [point(0)]


def test_what_is_logged_in_a_program_that_ends_is_written(tmp_path: Path) -> None:
    file = tmp_path / "written"
    program = (
        "from pathlib import Path; from maquette.tracking.buffer import Buffer, Point\n"
        f"buffer = Buffer(lambda points: Path({str(file)!r}).write_text(str(len(points))), 'the store')\n"
        "buffer.add_points([Point('loss', 1.0, 0, 0)] * 3)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert file.read_text() == "3"
