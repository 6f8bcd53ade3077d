"""How far a policy is from its reference, measured on answers that it samples, and what those look like.

Implicit rewards of DPO are about answers that somebody else gave; the divergence that a method spends is about the
policy's own.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from maquette.data.prompts import Prompt
from maquette.model import LanguageModel
from maquette.objectives.divergence import divergences
from maquette.objectives.rewards import Completion
from maquette.objectives.rollouts import sample_answers
from maquette.text import Tokenizer


@dataclass(frozen=True)
class SampledAnswers:
    """Answers of a policy at temperature 1. `divergences`: of each from the reference, in nats."""

    answers: list[Completion]
    divergences: list[float]

    def describe(self) -> dict[str, float]:
        """KL(policy || reference) of an answer, with its standard error, and the answers' lengths."""
        count = len(self.answers)
        return {
            "objective/kl": statistics.fmean(self.divergences),
            "objective/kl_standard_error": statistics.stdev(self.divergences) / count**0.5 if count > 1 else 0.0,
            "completions/mean_length": statistics.fmean(len(answer.answer_ids) for answer in self.answers),
            "completions/eos_rate": sum(answer.ended for answer in self.answers) / count,
        }


def diverged(
    model: LanguageModel,
    reference: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    seed: int = 0,
) -> SampledAnswers:
    """Answers of `model`, seen by `reference`."""
    with torch.compiler.set_stance("force_eager"):
        answers = sample_answers(model, tokenizer, prompts, max_tokens=max_tokens, seed=seed)
        return SampledAnswers(answers, divergences(model, reference.eval(), answers).tolist())
