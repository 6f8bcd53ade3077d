"""How far a policy is from its reference, on completions that the policy has sampled.

Implicit rewards of DPO are about completions that somebody else gave; the KL divergence that a method spends is about
the policy's own.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.data.prompts import Prompt
from maquette.model import LanguageModel
from maquette.objectives.rewards import Completion
from maquette.objectives.rollouts import sample_answers, trajectories_of
from maquette.text import Tokenizer


def divergences(
    model: LanguageModel,
    reference: LanguageModel,
    answers: Sequence[Completion],
    *,
    temperature: float = 1.0,
    batch: int = 128,
) -> NDArray[np.float64]:
    """Divergence from the reference along each answer, in nats: the sum over its tokens of KL(policy || reference) of
    the whole distribution there. Its mean over the policy's own samples is the divergence between the two, with less
    variance than the log-ratio of the sampled tokens.

    Raises `StageError` where the two read different tokens.
    """
    if model.config.vocab_size != reference.config.vocab_size:
        raise StageError("Policy and reference have different vocabularies: no divergence can be told.")
    sums = np.zeros(len(answers))
    for start in range(0, len(answers), batch):
        rows = trajectories_of(answers[start : start + batch], model.head_weight.device)
        with torch.inference_mode():
            mine, theirs = (
                (one.logits(one.core(rows.tokens)[:, :-1][rows.mask]).float() / temperature).log_softmax(-1)
                for one in (model, reference)
            )
            each = (mine.exp() * (mine - theirs)).sum(-1)
            whose = rows.mask.nonzero()[:, 0]
            found = torch.zeros(len(rows), dtype=each.dtype, device=each.device).index_add_(0, whose, each)
        sums[start : start + len(rows)] = found.double().cpu().numpy()
    return sums


@dataclass(frozen=True)
class SampledCompletions:
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


def sampled_divergence(
    model: LanguageModel,
    reference: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    seed: int = 0,
) -> SampledCompletions:
    """Answers of `model`, seen by `reference`."""
    with torch.compiler.set_stance("force_eager"):
        answers = sample_answers(model, tokenizer, prompts, max_tokens=max_tokens, seed=seed)
        return SampledCompletions(answers, divergences(model, reference.eval(), answers).tolist())
