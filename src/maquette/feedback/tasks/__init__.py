"""Instruction tasks in plain English whose true reward a program can tell; endless, from a seed, without a download."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.feedback.tasks.answers import gold_reward, is_list, is_refusal, words_of
    from maquette.feedback.tasks.demonstrators import MIXTURES, Demonstrators, demonstrate
    from maquette.feedback.tasks.exercise import Exercise, Task, from_facts
    from maquette.feedback.tasks.kinds import TASKS
    from maquette.feedback.tasks.supply import Exercises, split_of

_HOMES = {
    "answers": ("gold_reward", "is_list", "is_refusal", "words_of"),
    "demonstrators": ("MIXTURES", "Demonstrators", "demonstrate"),
    "exercise": ("Exercise", "Task", "from_facts"),
    "kinds": ("TASKS",),
    "supply": ("Exercises", "split_of"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "MIXTURES",
    "TASKS",
    "Demonstrators",
    "Exercise",
    "Exercises",
    "Task",
    "demonstrate",
    "from_facts",
    "gold_reward",
    "is_list",
    "is_refusal",
    "split_of",
    "words_of",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
