"""Pairs of answers to be judged: sampled from a policy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maquette.artifacts.progress import progress
from maquette.data.prompts import Prompt
from maquette.feedback.comparison import Comparison
from maquette.model import LanguageModel
from maquette.objectives.completions import Completion, sample_completions

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_BATCH = 256


def sample_many(
    model: LanguageModel,
    tokenizer: "Tokenizer",
    prompts: Sequence[Prompt],
    count: int,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[list[Completion]]:
    """`count` answers to each prompt, in the order of prompts; with progress."""
    repeated = [prompt for prompt in prompts for _ in range(count)]
    answers: list[Completion] = []
    with progress("sampling answers", len(repeated), unit="answers") as advance:
        for start in range(0, len(repeated), _BATCH):
            part = repeated[start : start + _BATCH]
            answers += sample_completions(
                model, tokenizer, part, max_tokens=max_tokens, temperature=temperature, seed=seed, first=start
            )
            advance(len(part))
    return [answers[row * count : (row + 1) * count] for row in range(len(prompts))]


def pairs_of(answers: Sequence[Sequence[Completion]]) -> list[Comparison]:
    """The first with the second answer to each prompt, the third with the fourth, and so on. Equal answers are left
    out: there is nothing to prefer."""
    return [
        Comparison(first.messages, first.answer, second.answer, first.facts)
        for row in answers
        for first, second in zip(row[::2], row[1::2], strict=False)
        if first.answer != second.answer
    ]
