"""What a policy meets: prompts that it answers, and the reward of its answers.

All that is drawn is a pure function of (policy's weights, seed, iteration, place), so a run that is killed while it
samples draws the same again. Scores are standardised by those of the reference's answers.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maquette.artifacts import StageError
from maquette.data.prompts import Prompt, PromptSource
from maquette.model import LanguageModel
from maquette.objectives.iterations import World
from maquette.objectives.policy_config import PolicyConfig
from maquette.objectives.rewards import Completion, RewardFunction, checked_scores
from maquette.objectives.rollouts import ANSWER_SEEDS, sample_answers

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_FIRST_CALIBRATION_PROMPT = 1 << 40
"""Prompts that scores are standardised on: far behind those of any iteration."""


@dataclasses.dataclass
class Environment:
    """Prompts and a reward, as one process sees them.

    `score_scale`: mean and standard deviation that scores are standardised by; None until `calibrate` has taken them.
    """

    config: PolicyConfig
    tokenizer: "Tokenizer"
    prompts: PromptSource
    reward: RewardFunction
    seed: int = 0
    world: World = dataclasses.field(default_factory=World)
    score_scale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.config.normalize_scores:
            self.score_scale = (0.0, 1.0)

    def answers(self, model: LanguageModel, iteration: int, count: int) -> list[Completion]:
        """This process's `count` answers of an iteration. Raises `StageError` for a prompt that fills the context."""
        first = iteration * count * self.world.size + self.world.rank * count
        size = self.config.group_size if self.config.advantage == "group" else 1
        prompts = [self.prompts[(first + row) // size] for row in range(count)]
        return self._sample(model, prompts, first=iteration * ANSWER_SEEDS + self.world.rank * count)

    def calibrate(self, reference: LanguageModel) -> tuple[float, float]:
        """Takes the scale of the scores from answers of the reference: their mean and standard deviation."""
        count = self.config.normalize_scores
        prompts = [self.prompts[_FIRST_CALIBRATION_PROMPT + number] for number in range(count)]
        scores = self.scores(self._sample(reference, prompts, first=ANSWER_SEEDS << 20)).double()
        deviation = float(scores.std()) if count > 1 else 0.0
        self.score_scale = float(scores.mean()), deviation if deviation > 1e-8 else 1.0
        return self.score_scale

    def scores(self, answers: Sequence[Completion]) -> Tensor:
        """The reward's own numbers, `(N,)`. Raises `StageError` where one is not finite."""
        return torch.tensor(checked_scores(self.reward, answers), dtype=torch.float64)

    def standardized(self, scores: Tensor, answers: Sequence[Completion]) -> Tensor:
        """What is optimised, `(N,)`: scores on their scale, less the penalty for an answer without an end."""
        assert self.score_scale is not None
        mean, deviation = self.score_scale
        endless = torch.tensor([not answer.ended for answer in answers])
        return ((scores - mean) / deviation - self.config.missing_eos_penalty * endless).float()

    def _sample(self, model: LanguageModel, prompts: Sequence[Prompt], *, first: int) -> list[Completion]:
        config, context = self.config, model.config.max_position_embeddings
        longest = max(len(prompt.ids) for prompt in prompts)
        if longest >= context:
            raise StageError(
                f"A prompt has {longest:,} tokens; the policy's context holds {context:,} with the answer.",
                "Leave such prompts out, or train a model with a longer context.",
            )
        return sample_answers(
            model, self.tokenizer, prompts, max_tokens=config.max_completion_length, temperature=config.temperature,
            seed=self.seed, first=first,
        )  # fmt: skip
