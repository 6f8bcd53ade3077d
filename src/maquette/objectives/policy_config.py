"""Settings of policy optimisation (PPO and its group-relative variant)."""

from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting
from maquette.objectives.config import ObjectiveConfig


@dataclass
class PolicyConfig(ObjectiveConfig):
    """Policy optimisation: sample answers, score them, and move towards what scored well."""

    _target_: str = setting("maquette.objectives.ProximalPolicyOptimization", "the LightningModule's class")
    kind: str = setting("ppo", "what is trained for", choices=("ppo",))
    num_iterations: int = setting(50, "rounds of sampling and learning; each is an epoch", minimum=1)
    rollout_batch_size: int = setting(128, "answers sampled in an iteration, over all processes", minimum=1)
    ppo_epochs: int = setting(2, "how often each answer is learned from", minimum=1)
    num_minibatches: int = setting(2, "optimiser steps of a pass", minimum=1)
    max_completion_length: int = setting(20, "tokens of an answer at most", minimum=1)
    temperature: float = setting(1.0, "of the distribution that is sampled from and trained", minimum=0.01)
    advantage: str = setting(
        "value", "what an answer is compared with: a value function, or the other answers to its prompt",
        choices=("value", "group"),
    )  # fmt: skip
    group_size: int = setting(4, "answers to one prompt where advantage=group", minimum=2)
    value_init: str = setting(
        "reward",
        "what the value function starts from: the reward model, the policy's core, or shared (a head on the policy)",
        choices=("reward", "policy", "shared"),
    )
    value_learning_rate: float | None = setting(
        None, "peak learning rate of the value function; by default 3.3 times the policy's", minimum=0.0
    )
    vf_coef: float = setting(0.1, "of the value loss beside the policy loss", minimum=0.0)
    clip_range: float = setting(0.2, "how far the ratio of policies may be from 1", minimum=0.0)
    clip_range_value: float = setting(0.2, "how far a value may move from the old one", minimum=0.0)
    gamma: float = setting(1.0, "gamma of the advantage estimate", minimum=0.0, maximum=1.0)
    gae_lambda: float = setting(0.95, "lambda of the advantage estimate", minimum=0.0, maximum=1.0)
    kl_coefficient: float = setting(0.1, "price of a nat of divergence from the reference", minimum=0.0)
    kl_estimator: str = setting("k1", "estimate of that divergence in the reward", choices=("k1", "k2", "k3"))
    kl_target: float | None = setting(
        None, "steer the coefficient so that an answer's divergence is so many nats", minimum=0.0
    )
    kl_horizon: float = setting(10_000, "episodes in which the steered coefficient adapts", minimum=1)
    target_kl: float | None = setting(
        None, "an iteration's remaining steps are left out once the approximate KL to its start exceeds this",
        minimum=0.0,
    )  # fmt: skip
    ent_coef: float = setting(0.0, "of an entropy bonus", minimum=0.0)
    normalize_scores: int = setting(
        256, "scores are standardised by those of so many answers of the reference; 0: left as they are", minimum=0
    )
    whiten_rewards: bool = setting(False, "tokens' rewards are scaled to unit variance")
    missing_eos_penalty: float = setting(1.0, "taken off the score of an answer without an end of turn", minimum=0.0)

    def validate(self) -> None:
        """Raises `ConfigError` for settings that contradict each other."""
        if self.advantage == "group" and self.rollout_batch_size % self.group_size:
            raise ConfigError(
                f"rollouts={self.rollout_batch_size} is not a multiple of group_size={self.group_size}.",
                "Each prompt is answered group_size times.",
            )
        if self.kl_target is not None and not self.kl_target > 0:
            raise ConfigError(
                f"objective.kl_target={self.kl_target:g}: a divergence of nothing can't be steered to.",
                "Give nats above 0, or null for a fixed coefficient.",
            )
        if self.rollout_batch_size < self.num_minibatches:
            raise ConfigError(f"rollouts={self.rollout_batch_size} are fewer than minibatches={self.num_minibatches}.")
