"""Jobs that wait for each other, in worker processes: they run side by side, fail apart, and end when they are told."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.cli.sweeps.side_by_side import run_side_by_side
from maquette.cli.sweeps.work import FINISHED, Files
from support.side_by_side_jobs import STEPS

Job = tuple[set[int], Sequence[tuple[str, Any]]]


def run(folder: Path, jobs: Sequence[Job]) -> dict[int, Any]:
    """Runs jobs (those that each needs, and what it does) in two processes; what they returned, in the order in which
    they ended."""
    made: dict[int, Any] = {}

    def ready() -> list[tuple[int, Any, Any]]:
        return [(one, STEPS, steps) for one, (needs, steps) in enumerate(jobs) if needs <= made.keys()]

    titles = [f"job {number}" for number in range(len(jobs))]
    try:
        run_side_by_side("study of tests", folder / "study", titles, [], ready, made.__setitem__, workers=2)
    finally:
        made_by_number.clear()
        made_by_number.update(made)
    return made


made_by_number: dict[int, Any] = {}


def test_jobs_begin_when_what_they_need_is_made(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "abcd"]
    # The second and the third wait for each other's files: one after the other they would never end.
    made = run(tmp_path, [
        (set(), [("write", files[0])]),
        ({0}, [("wait_for", files[0]), ("write", files[1]), ("wait_for", files[2])]),
        ({0}, [("write", files[2]), ("wait_for", files[1])]),
        ({1, 2}, [("wait_for", files[1]), ("wait_for", files[2])]),
    ])  # fmt: skip
    assert [*made] in ([0, 1, 2, 3], [0, 2, 1, 3])
    assert {one["threads"] for one in made.values()} == {"1"}
    assert made[1]["process"] != made[2]["process"] and os.getpid() not in {one["process"] for one in made.values()}
    outcomes = Files(tmp_path / "study").outcomes()
    assert [outcomes[number]["status"] for number in range(4)] == [FINISHED] * 4


def test_a_failure_lets_the_others_end_and_none_begin(tmp_path: Path) -> None:
    failed = str(Files(tmp_path / "study").outcome(1))
    with pytest.raises(ConfigError, match=r"job 1: no such colour\n  Choose another\. .*0001\.log"):
        run(tmp_path, [
            (set(), [("wait_for", failed)]),
            (set(), [("refuse", "no such colour")]),
            (set(), [("write", str(tmp_path / "begun"))]),
            ({0}, [("write", str(tmp_path / "begun"))]),
        ])  # fmt: skip
    assert list(made_by_number) == [0] and not (tmp_path / "begun").exists()


def test_a_process_that_is_killed_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"The process of job 0( or job 1)? ended without a word .*killed"):
        run(tmp_path, [(set(), [("kill", signal.SIGKILL)]), ({0}, [])])


def test_a_request_to_stop_reaches_the_jobs(tmp_path: Path) -> None:
    never, begun = str(tmp_path / "never"), str(tmp_path / "begun")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, [
            (set(), [("write", begun), ("wait_for", never)]),
            (set(), [("wait_for", begun), ("kill_parent", signal.SIGTERM), ("wait_for", never)]),
            (set(), [("write", str(tmp_path / "third"))]),
        ])  # fmt: skip
    assert not made_by_number and not Files(tmp_path / "study").outcomes() and not (tmp_path / "third").exists()
