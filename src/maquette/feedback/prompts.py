"""Prompts of the embedded tasks, and of files, as policies and annotators take them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts import StageError
from maquette.data.prompts import Prompt, PromptSource, ShuffledPrompts, render_prompt
from maquette.feedback.config import PromptsConfig
from maquette.feedback.tasks import Exercises
from maquette.text.chat import Message

if TYPE_CHECKING:
    from maquette.text import Tokenizer


class TaskPrompts:
    """Exercises rendered as prompts; the exercise is in each prompt's facts, so its gold reward can be told."""

    def __init__(self, tokenizer: "Tokenizer", exercises: Exercises, *, longest: int) -> None:
        """`longest`: tokens that a prompt may have, so that an answer has room."""
        self._tokenizer, self._exercises, self._longest = tokenizer, exercises, longest

    def __getitem__(self, number: int) -> Prompt:
        """Raises `StageError` where the prompt is too long: the tasks' prompts are alike, so the others will be too."""
        exercise = self._exercises[number]
        prompt = render_prompt(self._tokenizer, exercise.messages, exercise.facts())
        if len(prompt.ids) > self._longest:
            raise StageError(
                f"A prompt of the task {exercise.task} has {len(prompt.ids):,} tokens; at most {self._longest:,} leave "
                "room for an answer in the model's context.",
                "Use a model with a longer context, or shorter answers.",
            )
        return prompt


def open_prompts(config: PromptsConfig, tokenizer: "Tokenizer", *, longest: int, split: str = "train") -> PromptSource:
    """The prompts that the settings name, in an endless order. Raises `StageError` where a file has none that fit."""
    if config.path is None:
        return TaskPrompts(tokenizer, Exercises(config.tasks, seed=config.seed, split=split), longest=longest)
    return ShuffledPrompts(read_prompts(config.path, tokenizer), longest=longest, seed=config.seed)


def read_prompts(path: Path | str, tokenizer: "Tokenizer") -> list[Prompt]:
    """The prompts of a file: of instructions without the last answer, of preferences as they are; Alpaca's too.

    Raises `StageError` that names a row without a prompt."""
    from maquette.data.rows import json_files, read_rows

    prompts = []
    for place, row in read_rows(json_files(path, "prompts"), "prompts"):
        prompts.append(render_prompt(tokenizer, _messages(row, place), row.get("facts")))
    return prompts


def _messages(row: dict[str, Any], place: str) -> Sequence[Message]:
    if isinstance(row.get("instruction"), str):
        text = "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
        return [{"role": "user", "content": text}]
    messages = row.get("prompt", row.get("messages"))
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not messages:
        raise StageError(
            f"{place} has no prompt.", 'A row has "prompt" or "messages" (a list of turns), or "instruction".'
        )
    try:
        answered = messages[-1]["role"] == "assistant"
    except (KeyError, TypeError):
        raise StageError(f"{place}: its last message has no role.") from None
    return messages[:-1] if answered else messages
