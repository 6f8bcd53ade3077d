"""An endless supply of exercises from a seed, in two halves that never meet: for training, and held out.

Which half an exercise belongs to is decided by a digest of its instruction. So no seed, no task mix and no number of
exercises can let a held-out prompt into training.
"""

import hashlib
import random
from collections.abc import Sequence

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import nearest
from maquette.feedback.tasks.exercise import Exercise, Task
from maquette.feedback.tasks.kinds import TASKS

SPLITS = ("train", "held_out")
HELD_OUT = 0.2
"""Share of all possible instructions that is kept from training."""


def split_of(instruction: str) -> str:
    """The half that an instruction belongs to, on every machine and for ever."""
    number = int.from_bytes(hashlib.sha256(instruction.encode()).digest()[:8], "big")
    return "held_out" if number < HELD_OUT * 2**64 else "train"


class Exercises:
    """`exercises[i]` is a pure function of (tasks, seed, split, i), for any i."""

    def __init__(self, tasks: Sequence[str] = ("pick",), *, seed: int = 0, split: str = "train") -> None:
        """`tasks`: names of `TASKS`, drawn evenly. Raises `ConfigError` for one that is not known."""
        self.tasks: list[Task] = [find_task(name) for name in tasks]
        if not self.tasks:
            raise ConfigError("No task is named.", f"Known tasks: {', '.join(TASKS)}.")
        if split not in SPLITS:
            raise ConfigError(f"split={split} is not known.", f"Allowed: {', '.join(SPLITS)}.")
        self.names, self.seed, self.split = tuple(task.name for task in self.tasks), seed, split

    def __getitem__(self, number: int) -> Exercise:
        numbers = random.Random(f"{self.seed} {self.split} {' '.join(self.names)} {number}")
        while True:
            exercise = numbers.choice(self.tasks).draw(numbers)
            if split_of(exercise.instruction) == self.split:
                return exercise

    def take(self, count: int, start: int = 0) -> list[Exercise]:
        """Exercises `start` to `start + count`."""
        return [self[number] for number in range(start, start + count)]


def find_task(name: str) -> Task:
    """The task of this name. Raises `ConfigError`, with the nearest known name, for any other."""
    if name not in TASKS:
        close = nearest(name, list(TASKS))
        hint = f"Did you mean '{close}'? " if close else ""
        raise ConfigError(f"there is no task '{name}'.", f"{hint}Known tasks: {', '.join(TASKS)}.")
    return TASKS[name]
