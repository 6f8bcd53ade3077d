"""Stages whose jobs take no time to import: what worker processes are given in tests of running them side by side."""

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.cli.command_line.registry import STAGES, Stage


@dataclasses.dataclass(frozen=True)
class Steps(Stage):
    """Does what its settings say, one (verb, value) after another."""

    def run(self, chosen: Any, *shared: Any) -> Any:
        for verb, value in chosen:
            getattr(self, verb)(value)
        return {"process": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}

    def write(self, path: str) -> None:
        Path(path).write_text("")

    def wait_for(self, path: str) -> None:
        end = time.monotonic() + 120
        while not Path(path).exists():
            if time.monotonic() > end:
                raise TimeoutError(path)
            time.sleep(0.01)

    def refuse(self, message: str) -> None:
        raise ConfigError(message, "Choose another.")

    def kill(self, number: signal.Signals) -> None:
        os.kill(os.getpid(), number)

    def kill_parent(self, number: signal.Signals) -> None:
        os.kill(os.getppid(), number)


STEPS = Steps("steps", "what a test asks for", STAGES["corpus"].config)
