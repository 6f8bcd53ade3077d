"""The attacks on whole processes, in small: what is left alone ends, and what was tried is not tried again."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.faults.kills import fork
from tests.faults.lines import killed_after
from tests.faults.record import Record

from maquette.artifacts.process_state import end_with
from maquette.artifacts.reading import write_sealed
from maquette.cli.sweeps import running, work
from maquette.cli.sweeps.launching import Launching
from maquette.cli.sweeps.work import Files
from maquette.corpus.workers import workers


def test_a_worker_whose_parent_died_before_its_first_job_ends() -> None:
    def follow(launcher: int, started: bool) -> int:
        child = fork(lambda: work._follow(launcher, started=started))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    gone = os.waitpid(child := fork(lambda: None), 0) and child
    assert follow(gone, started=True) == 1
    assert follow(gone, started=False) == 0  # Slurm's and submitit's live on
    assert follow(os.getpid(), started=True) == 0


def test_a_rank_whose_launcher_died_during_its_imports_ends() -> None:
    """It would train alone, while the command that is run again trains in the same folder."""
    gone = os.waitpid(child := fork(lambda: None), 0) and child
    for parent, code in ((gone, 1), (os.getpid(), 0)):
        child = fork(lambda parent=parent: end_with(parent))  # type: ignore[misc]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def _work_until_killed(end: int) -> None:
    with workers(2) as pool:
        os.write(end, b"".join(b"%d " % number for number in pool.map(_number, range(20))))
        time.sleep(60)


def _number(_: int) -> int:
    return os.getpid()


def test_workers_end_with_a_parent_that_is_killed() -> None:
    """They waited for work for ever, with all that they had forked from their parent."""
    reader, end = os.pipe()
    child = fork(lambda: _work_until_killed(end))
    pool = {int(number) for number in os.read(reader, 4096).split()}
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until = time.monotonic() + 30
    while pool and time.monotonic() < until:
        pool = {number for number in pool if _lives(number)}
        time.sleep(0.02)
    assert not pool


def _lives(number: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_what_was_tried_is_not_tried_again(tmp_path: Path) -> None:
    messages: list[str] = []
    for _ in range(2):
        record = Record(tmp_path / "faults.jsonl", messages.append)
        for trial, lost in ((0, []), (1, ["other weights", "left for ever", "exit 1"])):
            record.attempt("lines", "fit", 7, trial, lambda lost=lost: (2, lost))  # type: ignore[misc]
    assert messages[1:] == ["    other weights", "    left for ever", "    exit 1"] and record.lost() == 2
    assert "| lines: fit | 4 | 2 | 2 |" in record.table() and "Seeds 7;" in record.table()


def test_a_kill_after_the_end_counts_for_nothing() -> None:
    assert killed_after(fork(lambda: time.sleep(60)), 0.05) is None
    ended = killed_after(fork(lambda: None), 60)
    assert ended is not None and ended < 60


@pytest.mark.parametrize("failures", [1, 2])
def test_a_launch_in_which_no_job_begins_is_made_once_more(failures: int, tmp_path: Path) -> None:
    """joblib's worker was killed during its imports: all jobs of the sweep had failed."""
    files, launches = Files(tmp_path), [0]

    def launch(numbers: Sequence[int]) -> None:
        launches[0] += 1
        if launches[0] <= failures:
            raise RuntimeError("a worker was killed")
        for number in numbers:
            write_sealed(files.outcome(number), {"status": "finished", "seconds": 1.0})

    jobs = [SimpleNamespace(title=name, forecast=None) for name in ("a", "b")]
    sweep: Any = SimpleNamespace(name="sweep", jobs=jobs)
    running._run(sweep, [0, 1], [1.0, 1.0], Launching("joblib", (), 2, 1, ""), files, launch)
    assert launches == [2]
    ended = [one["status"] for one in files.outcomes().values()]
    assert ended == (["finished"] * 2 if failures == 1 else ["failed"] * 2)
