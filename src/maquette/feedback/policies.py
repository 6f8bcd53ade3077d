"""What a policy is worth: its completions of prompts it never saw, scored by gold and by whatever else, and how far it
has moved from where it began; and pairs of its completions for annotators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.artifacts.files import digest
from maquette.artifacts.progress import progress, say
from maquette.data.conversations import Prompt
from maquette.data.process_group import ProcessGroup, of_all_processes
from maquette.feedback.comparison import Comparison
from maquette.feedback.config import PromptsConfig
from maquette.feedback.prompts import open_prompts, say_left_out
from maquette.feedback.tasks import words_of
from maquette.model import LanguageModel
from maquette.model.loading import load_checkpoint
from maquette.objectives.completions import (
    Completion,
    RewardFunction,
    checked_scores,
    completion_kl,
    sample_completions,
)
from maquette.objectives.environment import parts_of
from maquette.statistics import Estimate, bootstrap_mean
from maquette.training.devices import threads_for

if TYPE_CHECKING:
    from maquette.text import Tokenizer

LEVEL = 0.95
"""Of the intervals in tables and figures of policies."""


@dataclass(frozen=True)
class PolicyScores:
    """A policy's completions to the same prompts in the same order as its rivals': (n,) each.

    `scores` by the name of their reward; `kl_by_completion` is each completion's KL divergence from the reference in
    nats, `words` its length."""

    completions: tuple[Completion, ...]
    scores: Mapping[str, NDArray[np.float64]]
    kl_by_completion: NDArray[np.float64]
    words: NDArray[np.float64]

    @property
    def kl(self) -> float:
        """Mean KL divergence from the reference, in nats per completion."""
        return float(self.kl_by_completion.mean())

    @property
    def ended(self) -> float:
        """Share of completions with an end of turn."""
        return float(np.mean([one.ended for one in self.completions]))

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
    group: ProcessGroup | None = None,
) -> PolicyScores:
    """Samples one completion of each prompt and scores it; the random numbers of a prompt are the same for every
    policy.

    `temperature=0` is greedy. The KL divergence is 0 where no `reference` is given or the choice is greedy. The
    processes of `group`, which call this together, share the prompts out, and each gets the scores of all.
    """
    group = group or ProcessGroup()
    mine = list(parts_of(len(prompts), group.size))[group.rank]
    completions = sample_completions(
        model, tokenizer, prompts[mine], max_tokens=max_tokens, temperature=temperature, seed=seed, first=mine.start
    )
    kl = np.zeros(len(completions))
    if reference is not None and temperature > 0:
        kl = completion_kl(model, reference, completions, temperature=temperature)
    scores = {
        name: np.array(checked_scores(reward, completions)) if completions else np.zeros(0)
        for name, reward in rewards.items()
    }
    if group.size > 1:
        parts = of_all_processes((completions, kl, scores))
        completions = [one for part in parts for one in part[0]]
        kl = np.concatenate([part[1] for part in parts])
        scores = {name: np.concatenate([part[2][name] for part in parts]) for name in rewards}
    words = np.array([len(words_of(one.answer)) for one in completions], dtype=float)
    return PolicyScores(tuple(completions), scores, kl, words)


def win_rate(policy: PolicyScores, rival: PolicyScores, name: str) -> Estimate:
    """How often the policy's completion beats the rival's on the same prompt by a score, ties half: a share with its
    95% interval, from a bootstrap over prompts."""
    mine, theirs = policy.scores[name], rival.scores[name]
    if len(mine) != len(theirs):
        raise StageError(f"The policies answered {len(mine)} and {len(theirs)} prompts: they can't be paired.")
    wins = (mine > theirs + 1e-9) + 0.5 * (np.abs(mine - theirs) <= 1e-9)
    return bootstrap_mean(wins, level=LEVEL)


class BinaryReward:
    """1 where a completion beats the baseline's to the same prompt by another reward, -1 where it loses, 0 for a tie:
    its mean is 2 (win rate against the baseline) - 1, and how far it wins is lost.

    The baseline samples at temperature 1, as a policy that starts from it does; what it says to a prompt is a pure
    function of the prompt, so that a resumed run sees the same rewards."""

    def __init__(
        self, reward: RewardFunction, baseline: LanguageModel, tokenizer: "Tokenizer", *, max_tokens: int
    ) -> None:
        self.reward, self.baseline, self.tokenizer, self.max_tokens = reward, baseline.eval(), tokenizer, max_tokens

    def __call__(self, completions: Sequence[Completion]) -> list[float]:
        prompts = {one.prompt_ids: Prompt(one.messages, one.prompt_ids, one.facts) for one in completions}
        numbers = [int(digest(list(ids))[:8], 16) for ids in prompts]
        rivals = sample_completions(
            self.baseline, self.tokenizer, list(prompts.values()), max_tokens=self.max_tokens, numbers=numbers
        )
        theirs = dict(zip(prompts, checked_scores(self.reward, rivals), strict=True))
        mine = checked_scores(self.reward, completions)
        return [float(np.sign(score - theirs[one.prompt_ids])) for score, one in zip(mine, completions, strict=True)]


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
    """`count` completions of each prompt, in the order of prompts; with progress."""
    repeated = [prompt for prompt in prompts for _ in range(count)]
    completions: list[Completion] = []
    with progress("sampling completions", len(repeated), unit="completions") as advance:
        for start in range(0, len(repeated), _BATCH):
            part = repeated[start : start + _BATCH]
            completions += sample_completions(
                model, tokenizer, part, max_tokens=max_tokens, temperature=temperature, seed=seed, first=start
            )
            advance(len(part))
    return [completions[row * count : (row + 1) * count] for row in range(len(prompts))]


def say_cut(cut: int, completions: int, longest: int, whose: str = "") -> None:
    """Says how many completions had no end of turn after as many tokens as are allowed."""
    if cut:
        more = "max_completion_length=<tokens> allows more"
        say(f"{cut:,} of {completions:,} completions{whose} were cut at {longest:,} tokens; {more}.")


def sample_pairs(
    folder: Path,
    config: PromptsConfig,
    *,
    count: int,
    first: int,
    answers: int,
    max_completion_length: int,
    temperature: float,
    seed: int,
) -> list[Comparison]:
    """Completions of the model in `folder` to `count` prompts from the `first` on: the first of the `answers` to a
    prompt beside the second, the third beside the fourth, and so on.

    Equal completions are left out: there is nothing to prefer."""
    model, tokenizer = load_checkpoint(folder)
    longest = max(1, model.config.max_position_embeddings - max_completion_length)
    source = open_prompts(config, tokenizer, longest=longest)
    say_left_out(source)
    prompts = [source[number] for number in range(first, first + count)]
    with threads_for(model.config.hidden_size):
        completions = sample_many(
            model, tokenizer, prompts, answers, max_tokens=max_completion_length, temperature=temperature, seed=seed
        )
    every = [one for row in completions for one in row]
    say_cut(sum(not one.ended for one in every), len(every), max_completion_length)
    return [
        Comparison(one.messages, one.answer, other.answer, one.facts)
        for row in completions
        for one, other in zip(row[::2], row[1::2], strict=False)
        if one.answer != other.answer
    ]
