"""Settings of instructions that the embedded tasks give."""

from dataclasses import dataclass

from maquette.artifacts.settings import setting
from maquette.data.config import ExamplesConfig


@dataclass
class TaskInstructionsConfig(ExamplesConfig):
    """Exercises of the embedded tasks, answered by demonstrators."""

    kind: str = setting("task", "where they come from", choices=("task",))
    tasks: list[str] = setting(lambda: ["pick"], "tasks: pick, sort, reverse, count, repeat, refuse")
    demonstrators: str = setting(
        "harder", "who answers, some better than others", choices=("easy", "harder", "perfect", "listing")
    )
    count: int = setting(40_000, "demonstrations for training", minimum=1)
    held_out: int = setting(512, "demonstrations to validate on", minimum=0)
    seed: int = setting(0, "seed of exercises and answers; by default that of the run", minimum=0)
