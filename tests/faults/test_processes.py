"""The attacks on whole processes, in small: what is left alone ends, and what was tried is not tried again."""

import os
import time
from pathlib import Path

from tests.faults.kills import fork
from tests.faults.lines import killed_after
from tests.faults.record import Record

from maquette.cli.sweeps import work


def test_a_worker_whose_parent_died_before_its_first_job_ends() -> None:
    def follow(launcher: int, started: bool) -> int:
        child = fork(lambda: work._follow(launcher, started=started))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    gone = os.waitpid(child := fork(lambda: None), 0) and child
    assert follow(gone, started=True) == 1
    assert follow(gone, started=False) == 0  # Slurm's and submitit's live on
    assert follow(os.getpid(), started=True) == 0


def test_what_was_tried_is_not_tried_again(tmp_path: Path) -> None:
    messages: list[str] = []
    for _ in range(2):
        record = Record(tmp_path / "faults.jsonl", messages.append)
        for trial, lost in ((0, []), (1, ["other weights"])):
            record.attempt("lines", "fit", 7, trial, lambda lost=lost: (2, lost))  # type: ignore[misc]
    assert messages == [messages[0], "    other weights"] and record.lost() == 1
    assert "| lines: fit | 4 | 3 | 1 |" in record.table() and "Seeds 7;" in record.table()


def test_a_kill_after_the_end_counts_for_nothing() -> None:
    assert killed_after(fork(lambda: time.sleep(60)), 0.05) is None
    ended = killed_after(fork(lambda: None), 60)
    assert ended is not None and ended < 60
