"""Feedback for a policy in training: its prompts, its reward, and how it is measured on prompts it never saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maquette.artifacts import StageError
from maquette.feedback.annotators.gold import GoldReward
from maquette.feedback.annotators.reward_model import LearnedReward
from maquette.feedback.building import build_reward
from maquette.feedback.config import PromptsConfig, RewardConfig
from maquette.feedback.policies import measure_policy
from maquette.feedback.task_sources import open_prompts
from maquette.model import LanguageModel
from maquette.objectives.completions import RewardFunction
from maquette.training.policy import PolicyFeedback

if TYPE_CHECKING:
    from maquette.text import Tokenizer

HELD_OUT_PROMPTS = 256
"""Held-out prompts that a policy in training is measured on."""


@dataclass(frozen=True)
class ConfiguredFeedback:
    """A `FeedbackSource` from settings: plain values until it is opened."""

    prompts: PromptsConfig
    reward: RewardConfig
    outputs: str

    def open(self, tokenizer: "Tokenizer", context: int, max_completion_length: int) -> PolicyFeedback:
        """Raises `StageError` where prompts leave no room for an answer, or the reward model reads other tokens."""
        longest = context - max_completion_length
        if longest < 1:
            raise StageError(
                f"Answers of {max_completion_length} tokens leave no room for a prompt in a context of {context}.",
                "Use shorter answers, or a model with a longer context.",
            )
        reward = build_reward(self.reward, self.outputs)
        if isinstance(reward, LearnedReward):
            reward.check_tokenizer(tokenizer.digest)
        held_out = open_prompts(self.prompts, tokenizer, longest=longest, split="held_out")
        prompts = tuple(held_out[number] for number in range(HELD_OUT_PROMPTS))
        rewards: dict[str, RewardFunction] = {"reward": reward}
        if self.prompts.path is None:
            rewards["gold"] = GoldReward()

        def measure(model: LanguageModel, reference: LanguageModel) -> Mapping[str, float]:
            scores = measure_policy(
                model, tokenizer, prompts, rewards, reference=reference, max_tokens=max_completion_length, seed=1
            )
            means = {name: float(values.mean()) for name, values in scores.scores.items()}
            return means | {"kl": scores.kl, "words": float(scores.words.mean()), "eos_rate": scores.ended}

        return PolicyFeedback(
            prompts=open_prompts(self.prompts, tokenizer, longest=longest),
            reward=reward,
            value=reward.model if isinstance(reward, LearnedReward) else None,
            measure=measure,
            held_out=prompts[:16],
        )
