"""How far a policy is from its reference, measured on answers that it samples, and what those look like.

Implicit rewards of DPO are about answers that somebody else gave; the divergence that a method spends is about the
policy's own.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from maquette.model import LanguageModel
from maquette.model.generation import Generation, generate
from maquette.model.sampling import Sampling
from maquette.model.scoring import score_tokens
from maquette.text import Tokenizer


@dataclass(frozen=True)
class SampledAnswers:
    """Answers of a policy at temperature 1. `divergences`: of each, log policy - log reference in nats."""

    answers: list[Generation]
    divergences: list[float]

    def describe(self) -> dict[str, float]:
        """KL(policy || reference) of an answer (its k1 estimate and standard error), and the answers' lengths."""
        count = len(self.answers)
        return {
            "objective/kl": statistics.fmean(self.divergences),
            "objective/kl_standard_error": statistics.stdev(self.divergences) / count**0.5 if count > 1 else 0.0,
            "completions/mean_length": statistics.fmean(len(answer.tokens) for answer in self.answers),
            "completions/eos_rate": sum(answer.finish_reason == "stop_id" for answer in self.answers) / count,
        }


def sample_answers(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Generation]:
    """An answer to each prompt that leaves room for one. Moves no random state but its own."""
    context = model.config.context_length
    fitting = [prompt for prompt in prompts if len(prompt) < context]
    with torch.compiler.set_stance("force_eager"):
        return generate(
            model, fitting, tokenizer=tokenizer, sampling=Sampling(temperature), max_tokens=max_tokens, seed=seed
        )


def diverged(
    model: LanguageModel,
    reference: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    seed: int = 0,
) -> SampledAnswers:
    """Answers of `model`, scored by `reference`."""
    answers = sample_answers(model, tokenizer, prompts, max_tokens=max_tokens, seed=seed)
    scored = score_tokens(reference, [[*answer.prompt, *answer.tokens] for answer in answers])
    differences = [
        sum(answer.log_probs) - sum(log_probs[-len(answer.tokens) :])
        for answer, log_probs in zip(answers, scored, strict=True)
    ]
    return SampledAnswers(answers, differences)
