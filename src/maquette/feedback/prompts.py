"""Prompts and instructions of the embedded tasks, for policies, annotators and training."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maquette.artifacts import StageError
from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.data.conversations import Instruction, Prompt, PromptSource, ShuffledPrompts, read_prompts, render_prompt
from maquette.feedback.config import PromptsConfig, TaskInstructionsConfig
from maquette.feedback.tasks import Exercises, demonstrate

if TYPE_CHECKING:
    from maquette.text import Tokenizer


class TaskPrompts:
    """Exercises rendered as prompts; the exercise is in each prompt's facts, so it has a gold reward."""

    def __init__(self, tokenizer: "Tokenizer", exercises: Exercises, *, longest: int) -> None:
        """`longest`: tokens that a prompt may have, so that a completion has room."""
        self._tokenizer, self._exercises, self._longest = tokenizer, exercises, longest

    def __getitem__(self, number: int) -> Prompt:
        """Raises `StageError` where the prompt is too long: the tasks' prompts are alike, so the others will be too."""
        exercise = self._exercises[number]
        prompt = render_prompt(self._tokenizer, exercise.messages, exercise.facts())
        if len(prompt.ids) > self._longest:
            raise StageError(
                f"A prompt of the task {exercise.task} has {len(prompt.ids):,} tokens; at most {self._longest:,} leave "
                "room for a completion in the model's context.",
                "Use a model with a longer context, or shorter completions.",
            )
        return prompt


def open_prompts(config: PromptsConfig, tokenizer: "Tokenizer", *, longest: int, split: str = "train") -> PromptSource:
    """The prompts that the settings name, in an endless order. Raises `StageError` where a file has none that fit."""
    if config.path is None:
        return TaskPrompts(tokenizer, Exercises(config.tasks, seed=config.seed, split=split), longest=longest)
    rows = config.open_rows("prompts")
    key = digest([rows.name, rows.inputs(), tokenizer.chat_digest])
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = read_prompts(rows, tokenizer)
    return ShuffledPrompts(_LAST[key], longest=longest, seed=config.seed)


_LAST: dict[str, list[Prompt]] = {}
"""What was read last, by its digest: a run opens its prompts to plan, to train and to validate."""


def say_left_out(prompts: PromptSource) -> None:
    """Says how many prompts of a file leave no room for a completion, if any."""
    if isinstance(prompts, ShuffledPrompts) and prompts.left_out:
        say(f"prompts: {prompts.left_out:,} of {prompts.left_out + len(prompts):,} left out: no room for a completion")


_VERSION = 1
"""Of what the tasks give for the same settings: raise it when that changes."""


class TaskInstructions:
    """An `ExampleSource` of instructions. Held-out exercises are of the half that no training ever sees."""

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

    def examples(self) -> Iterator[Instruction]:
        counts = {"train": self._config.count, "validation": self._config.held_out}
        if self._config.limit is not None:
            counts["train"] = min(counts["train"], self._config.limit)
        for split, exercises in self._exercises.items():
            drawn = exercises.take(counts[split])
            completions = demonstrate(drawn, self._config.demonstrators, seed=self._config.seed)
            for number, (exercise, completion) in enumerate(zip(drawn, completions, strict=True)):
                yield Instruction(
                    [*exercise.messages, {"role": "assistant", "content": completion}],
                    place=f"{exercise.task} exercise {number} ({split})",
                    split=split,
                )
