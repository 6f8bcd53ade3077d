"""From the scores of answers to the advantages of tokens: against a value function, or within a group of answers."""

from torch import Tensor

from maquette.objectives.losses import (
    generalized_advantage_estimate,
    kl_estimate,
    masked_sum,
    shape_rewards,
    whiten,
)
from maquette.objectives.policy_config import PolicyConfig


def token_rewards(
    scores: Tensor, log_probs: Tensor, reference: Tensor, mask: Tensor, config: PolicyConfig, kl_coefficient: float
) -> Tensor:
    """Each token's price of divergence, and the score on the last token: `(B, S)`; whitened, with its mean kept, where
    the settings say so (Ziegler et al. 2019's code)."""
    kl = kl_estimate(log_probs, reference, kind=config.kl_estimator)
    rewards = shape_rewards(scores, kl, mask, kl_coefficient=kl_coefficient)
    return whiten(rewards, mask, shift_mean=False) if config.whiten_rewards else rewards


def value_advantages(rewards: Tensor, values: Tensor, mask: Tensor, config: PolicyConfig) -> tuple[Tensor, Tensor]:
    """Whitened advantages, and returns, `(B, S)` each, by generalised advantage estimation."""
    advantages, returns = generalized_advantage_estimate(
        rewards, values, mask, gamma=config.gamma, gae_lambda=config.gae_lambda
    )
    return whiten(advantages, mask), returns


def group_advantages(rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Each token gets its answer's advantage over the other answers to the same prompt: `(B, S)`.

    The answer's reward is the sum over its tokens, divergence included; less the group's mean and over its standard
    deviation (Shao et al. 2024, "DeepSeekMath", section 4.1.2; there the divergence is in the loss). Answers of a group
    stand in consecutive rows. A group whose answers are all alike has nothing to teach: zero.
    """
    sums = masked_sum(rewards, mask, dim=1).view(-1, group_size)
    centred = sums - sums.mean(dim=1, keepdim=True)
    advantages = centred / (sums.std(dim=1, keepdim=True) + 1e-4)
    return advantages.flatten()[:, None] * mask
