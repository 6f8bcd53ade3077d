"""What child processes do in tests of `launch`: in a file of its own, which is quickly imported."""

import os
import signal
import time
from typing import Any

from maquette.artifacts import StageError
from maquette.training.processes import this_world


def what_a_process_does(kind: str) -> Any:
    """Runs in a child."""
    world = this_world()
    if kind == "error" and world.rank == 1:
        raise StageError("The second process has a complaint.", "Listen to it.")
    if kind == "death" and world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind in ("error", "death"):
        time.sleep(600)
    return world.rank, world.size, os.environ["MASTER_ADDR"]
