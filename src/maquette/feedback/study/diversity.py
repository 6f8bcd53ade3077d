"""How narrow a policy is, and how well it knows when it is right: entropy, different completions, calibration.

Alignment narrows: PPO and DPO give up completions for reward (Kirk et al. 2024, "Understanding the Effects of RLHF on
LLM Generalisation and Diversity"), and a model that was calibrated may no longer be (OpenAI 2023, GPT-4 Technical
Report, figure 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maquette.data.conversations import Prompt
from maquette.feedback.policies import sample_many
from maquette.feedback.tasks import words_of
from maquette.model import LanguageModel
from maquette.objectives.completions import Completion, completion_likelihoods
from maquette.statistics.intervals import reliability

if TYPE_CHECKING:
    from maquette.text import Tokenizer

SAMPLES = 8
"""Completions of a prompt among which different ones are counted."""

PROMPTS = 100
"""Prompts that so many completions are sampled of, at most."""

RIGHT = 1 - 1e-9
"""Gold reward from which a completion is right: the tasks' highest is 1."""


@dataclass(frozen=True)
class PolicyDiversity:
    """`entropy` in nats per completion; `distinct`, the share of different ones among `SAMPLES` completions of a
    prompt, and `distinct_words`, of different bigrams of words among all of them (distinct-2; Li et al. 2016);
    `calibration_error` of the greedy completion's probability to be right (None without a gold reward)."""

    entropy: float
    distinct: float
    distinct_words: float | None
    calibration_error: float | None


def measure_diversity(
    model: LanguageModel,
    tokenizer: "Tokenizer",
    prompts: Sequence[Prompt],
    greedy: Sequence[Completion],
    gold: ArrayLike | None,
    *,
    max_tokens: int,
    seed: int = 0,
) -> PolicyDiversity:
    """Of completions at T = 1 to the first `PROMPTS` prompts, and of `greedy` ones with their `gold` reward (n,)."""
    sampled = sample_many(model, tokenizer, prompts[:PROMPTS], SAMPLES, max_tokens=max_tokens, seed=seed)
    _, entropies = completion_likelihoods(model, [one for row in sampled for one in row])
    error = None
    if gold is not None:
        log_probs, _ = completion_likelihoods(model, greedy)
        error = calibration_error(log_probs, gold)
    answers = [[one.answer for one in row] for row in sampled]
    return PolicyDiversity(
        float(entropies.mean()), distinct_share(answers), distinct_ngrams([a for row in answers for a in row]), error
    )


def distinct_share(completions: Sequence[Sequence[str]]) -> float:
    """Mean over prompts of the share of different ones among a prompt's completions: 1 where no two are alike, 1/n
    where all n are."""
    return float(np.mean([len(set(row)) / len(row) for row in completions]))


def distinct_ngrams(completions: Sequence[str], size: int = 2) -> float | None:
    """Different n-grams of words among all n-grams of the completions (Li et al. 2016, "A Diversity-Promoting Objective
    Function"); None where no completion is so long."""
    grams = [
        tuple(words[start : start + size])
        for words in map(words_of, completions)
        for start in range(len(words) - size + 1)
    ]
    return len(set(grams)) / len(grams) if grams else None


def calibration_error(log_probs: ArrayLike, gold: ArrayLike) -> float:
    """Expected calibration error, in ten bins (Guo et al. 2017, equation 3), of completions' probabilities, from
    `log_probs (n,)`, as those of being right by `gold (n,)`."""
    probabilities: NDArray[np.float64] = np.exp(np.minimum(np.asarray(log_probs, float), 0.0))
    return reliability(probabilities, np.asarray(gold, float) >= RIGHT).error
