"""Several processes: one plans for all of them, and where one fails none waits for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maquette.training.processes import free_port

PROGRAM = Path(__file__).parents[1] / "support" / "peer_work.py"


@pytest.mark.parametrize(("how", "code"), [("listens", 3), ("hangs", 1)])
def test_one_plans_and_none_waits_for_the_dead(tmp_path: Path, how: str, code: int) -> None:
    """Nobody ends the other process, which waits for the first collective, or for ever."""
    meeting = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(tmp_path), how],
            env={**os.environ, **meeting, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (first, messages), (second, _) = (rank.communicate(timeout=120) for rank in ranks)
    assert [rank.returncode for rank in ranks] == [code, 3]
    assert (tmp_path / "planned").read_text() == "0\n0\n"
    plans, refusals = "'a plan of 0', 'a plan of 0'", ("ConfigError: size=-1 can't be.", "PeerError: size=-1 can't be.")
    assert [plans in one for one in (first, second)] == [True, True]
    assert all(repr(list(refusals)) in one for one in (first, second))
    reason = "process 1 failed: the reward is NaN."
    if how == "listens":
        assert f"PeerError: {reason}" in first
    else:
        assert reason in messages and (tmp_path / "left").read_text() == "failed"
    assert "StageError: the reward is NaN." in second
