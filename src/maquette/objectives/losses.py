"""The losses of all objectives, as pure functions: one name each, whatever file it lives in.

Arguments `(B, S)` have one length S, aligned to predicted tokens: `logits[:, :-1]` predicts `tokens[:, 1:]`, so
S = T - 1. `mask (B, S)` is bool, true where the token counts.
"""

from maquette.model.likelihoods import next_token_loss, token_log_probs
from maquette.objectives.masks import masked_mean, masked_sum, whiten
from maquette.objectives.policy_losses import (
    AdaptiveKLController,
    explained_variance,
    generalized_advantage_estimate,
    kl_estimate,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    token_entropy,
)
from maquette.objectives.preference_losses import (
    bradley_terry_loss,
    dpo_loss,
    soft_preference_loss,
    win_lose_loss,
)

__all__ = [
    "AdaptiveKLController",
    "bradley_terry_loss",
    "dpo_loss",
    "explained_variance",
    "generalized_advantage_estimate",
    "kl_estimate",
    "masked_mean",
    "masked_sum",
    "next_token_loss",
    "ppo_policy_loss",
    "ppo_value_loss",
    "shape_rewards",
    "soft_preference_loss",
    "token_entropy",
    "token_log_probs",
    "whiten",
    "win_lose_loss",
]
