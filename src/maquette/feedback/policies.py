"""What a policy is worth: its answers to prompts it never saw, scored by gold and by whatever else, and how far it has
moved from where it began; and pairs of its answers for annotators.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.artifacts.progress import progress
from maquette.data.prompts import Prompt
from maquette.feedback.comparison import Comparison
from maquette.feedback.tasks import words_of
from maquette.model import LanguageModel
from maquette.objectives.completions import (
    Completion,
    RewardFunction,
    checked_scores,
    completion_kl,
    sample_completions,
)
from maquette.statistics import Estimate, bootstrap_mean

if TYPE_CHECKING:
    from maquette.text import Tokenizer

LEVEL = 0.95
"""Of the intervals in tables and figures of policies."""


@dataclass(frozen=True)
class PolicyScores:
    """A policy's answers to the same prompts in the same order as its rivals': (n,) each.

    `scores` by the name of their reward; `divergence` is each answer's KL divergence from the reference in nats,
    `words` its length.
    """

    answers: tuple[Completion, ...]
    scores: Mapping[str, NDArray[np.float64]]
    divergence: NDArray[np.float64]
    words: NDArray[np.float64]

    @property
    def kl(self) -> float:
        """Mean KL divergence from the reference, in nats per answer."""
        return float(self.divergence.mean())

    @property
    def ended(self) -> float:
        """Share of answers with an end of turn."""
        return float(np.mean([answer.ended for answer in self.answers]))

    def mean(self, name: str) -> Estimate:
        """Mean of a score with its 95% interval."""
        return bootstrap_mean(self.scores[name], level=LEVEL)


def measure_policy(
    model: LanguageModel,
    tokenizer: "Tokenizer",
    prompts: Sequence[Prompt],
    rewards: Mapping[str, RewardFunction],
    *,
    reference: LanguageModel | None = None,
    max_tokens: int = 20,
    temperature: float = 1.0,
    seed: int = 0,
) -> PolicyScores:
    """Samples one answer to each prompt and scores it; the random numbers of a prompt are the same for every policy.

    `temperature=0` is greedy. The KL divergence is 0 where no `reference` is given or the choice is greedy.
    """
    answers = sample_completions(model, tokenizer, prompts, max_tokens=max_tokens, temperature=temperature, seed=seed)
    divergence = np.zeros(len(answers))
    if reference is not None and temperature > 0:
        divergence = completion_kl(model, reference, answers, temperature=temperature)
    scores = {name: np.array(checked_scores(reward, answers)) for name, reward in rewards.items()}
    words = np.array([len(words_of(answer.answer)) for answer in answers], dtype=float)
    return PolicyScores(tuple(answers), scores, divergence, words)


def win_rate(policy: PolicyScores, rival: PolicyScores, name: str) -> Estimate:
    """How often the policy's answer beats the rival's to the same prompt by a score, ties half: a share with its 95%
    interval, from a bootstrap over prompts."""
    mine, theirs = policy.scores[name], rival.scores[name]
    if len(mine) != len(theirs):
        raise StageError(f"The policies answered {len(mine)} and {len(theirs)} prompts: they can't be paired.")
    wins = (mine > theirs + 1e-9) + 0.5 * (np.abs(mine - theirs) <= 1e-9)
    return bootstrap_mean(wins, level=LEVEL)


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
