"""What an iteration of PPO learns from, once its answers are drawn: rewards of tokens, advantages, and the numbers by
which people judge the iteration."""

from collections.abc import Sequence

import torch
from torch import Tensor

from maquette.objectives.advantages import group_advantages, token_rewards, value_advantages
from maquette.objectives.losses import explained_variance, kl_estimate, masked_sum
from maquette.objectives.policy_config import PolicyConfig
from maquette.objectives.rewards import Completion
from maquette.objectives.rollouts import Trajectories


def credit(
    rollouts: Trajectories, scores: Tensor, reference: Tensor, config: PolicyConfig, kl_coefficient: float
) -> None:
    """Fills in `advantages` and `returns`.

    `rollouts` know the policy's log-probabilities and values before its first step; `scores (N,)` are standardised;
    `reference (N, S)` are the reference's log-probabilities of the same tokens.
    """
    rewards = token_rewards(scores, rollouts.log_probs, reference, rollouts.mask, config, kl_coefficient)
    if config.advantage == "group":
        rollouts.advantages = group_advantages(rewards, rollouts.mask, config.group_size)
    else:
        rollouts.advantages, rollouts.returns = value_advantages(rewards, rollouts.values, rollouts.mask, config)


def describe(
    rollouts: Trajectories,
    answers: Sequence[Completion],
    *,
    scores: Tensor,
    standardized: Tensor,
    reference: Tensor,
    entropy: Tensor,
    config: PolicyConfig,
    kl_coefficient: float,
) -> dict[str, float]:
    """What an iteration has shown, by TRL's names. `scores`, `standardized (N,)`; `reference`, `entropy (N, S)`.

    Divergence is the k1 estimate whatever the reward counts, so that runs can be compared.
    """
    mask = rollouts.mask
    kl = masked_sum(kl_estimate(rollouts.log_probs, reference), mask, dim=1)
    metrics = {
        "objective/kl": float(kl.mean()),
        "objective/kl_coefficient": kl_coefficient,
        "objective/scores": float(scores.mean()),
        "objective/scores_std": float(scores.std()) if len(scores) > 1 else 0.0,
        "objective/non_score_reward": float(-kl_coefficient * kl.mean()),
        "objective/rlhf_reward": float((standardized - kl_coefficient * kl).mean()),
        "objective/entropy": float(masked_sum(entropy, mask, dim=1).mean()),
        "completions/mean_length": float(mask.sum(dim=1).float().mean()),
        "completions/eos_rate": sum(answer.ended for answer in answers) / len(answers),
    }
    if config.advantage == "value":
        foretold = explained_variance(rollouts.values, rollouts.returns, mask)
        metrics["val/explained_variance"] = float(torch.nan_to_num(foretold))
    return metrics
