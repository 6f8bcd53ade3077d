"""What a policy is worth: its answers to prompts it never saw, scored by gold and by whatever else, and how far it has
moved from where it began."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.data.prompts import Prompt
from maquette.feedback.tasks import words_of
from maquette.model import LanguageModel
from maquette.objectives.rewards import Completion, RewardFunction, checked_scores
from maquette.objectives.rollouts import sample_answers, trajectories_of
from maquette.statistics import Estimate, bootstrap_mean

if TYPE_CHECKING:
    from maquette.text import Tokenizer

LEVEL = 0.95
"""Of the intervals in tables and figures of policies."""


@dataclass(frozen=True)
class PolicyScores:
    """A policy's answers to the same prompts in the same order as its rivals': (n,) each.

    `scores` by the name of their reward; `divergence` of each answer from the reference in nats (see `divergences`);
    `words` of it.
    """

    answers: tuple[Completion, ...]
    scores: Mapping[str, NDArray[np.float64]]
    divergence: NDArray[np.float64]
    words: NDArray[np.float64]

    @property
    def kl(self) -> float:
        """Mean divergence from the reference, in nats per answer."""
        return float(self.divergence.mean())

    @property
    def ended(self) -> float:
        """Share of answers with an end of turn."""
        return float(np.mean([answer.ended for answer in self.answers]))

    def mean(self, name: str) -> Estimate:
        """Mean of a score with its 95% interval."""
        return bootstrap_mean(self.scores[name], level=LEVEL, method="percentile")


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

    `temperature=0` is greedy. The divergence is 0 where no `reference` is given or the choice is greedy.
    """
    answers = sample_answers(model, tokenizer, prompts, max_tokens=max_tokens, temperature=temperature, seed=seed)
    divergence = np.zeros(len(answers))
    if reference is not None and temperature > 0:
        divergence = divergences(model, reference, answers, temperature=temperature)
    scores = {name: np.array(checked_scores(reward, answers)) for name, reward in rewards.items()}
    words = np.array([len(words_of(answer.answer)) for answer in answers], dtype=float)
    return PolicyScores(tuple(answers), scores, divergence, words)


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
    if model.config.vocabulary_size != reference.config.vocabulary_size:
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


def win_rate(policy: PolicyScores, rival: PolicyScores, name: str) -> Estimate:
    """How often the policy's answer beats the rival's to the same prompt by a score, ties half: a share with its 95%
    interval, from a bootstrap over prompts."""
    mine, theirs = policy.scores[name], rival.scores[name]
    if len(mine) != len(theirs):
        raise StageError(f"The policies answered {len(mine)} and {len(theirs)} prompts: they can't be paired.")
    wins = (mine > theirs + 1e-9) + 0.5 * (np.abs(mine - theirs) <= 1e-9)
    return bootstrap_mean(wins, level=LEVEL, method="percentile")
