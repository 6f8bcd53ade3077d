"""Instructions from the embedded tasks: exercises and what demonstrators of mixed quality answer."""

import dataclasses
from collections.abc import Iterator

from maquette.artifacts.files import digest
from maquette.data.instructions import Instruction
from maquette.feedback.instruction_config import TaskInstructionsConfig
from maquette.feedback.tasks import Exercises, demonstrate

_VERSION = 1
"""Of what the tasks give for the same settings: raise it when that changes."""


class TaskInstructions:
    """An `InstructionSource`. Held-out exercises are of the half that no training ever sees."""

    def __init__(self, config: TaskInstructionsConfig) -> None:
        """Raises `ConfigError` for a task that is not known."""
        self._config = config
        self._exercises = {
            split: Exercises(config.tasks, seed=config.seed, split=half)
            for split, half in (("train", "train"), ("validation", "held_out"))
        }
        self.label = "-".join(config.tasks)

    def inputs(self) -> dict[str, str]:
        settings = dataclasses.asdict(self._config)
        return {"task": digest({key: settings[key] for key in settings if key != "limit"} | {"version": _VERSION})}

    def instructions(self) -> Iterator[Instruction]:
        counts = {"train": self._config.count, "validation": self._config.held_out}
        if self._config.limit is not None:
            counts["train"] = min(counts["train"], self._config.limit)
        for split, exercises in self._exercises.items():
            drawn = exercises.take(counts[split])
            answers = demonstrate(drawn, self._config.demonstrators, seed=self._config.seed)
            for number, (exercise, answer) in enumerate(zip(drawn, answers, strict=True)):
                yield Instruction(
                    [*exercise.messages, {"role": "assistant", "content": answer}],
                    place=f"{exercise.task} exercise {number} ({split})",
                    split=split,
                )
