"""The losses of all objectives, as pure functions; those of preferences are in preference_losses.py.

Arguments `(B, S)` have one length S, aligned to predicted tokens: `logits[:, :-1]` predicts `tokens[:, 1:]`, so
S = T - 1. `mask (B, S)` is bool, true where the token counts. What stands outside a mask is never read: garbage there,
infinite or not a number, changes no value.
"""

import torch
from torch import Tensor

from maquette.model.likelihoods import next_token_loss, token_log_probs
from maquette.objectives.preference_losses import (
    bradley_terry_loss,
    dpo_loss,
    kto_loss,
    orpo_loss,
    simpo_loss,
    soft_preference_loss,
    win_lose_loss,
)

__all__ = [
    "AdaptiveKLController",
    "bradley_terry_loss",
    "dpo_loss",
    "explained_variance",
    "generalized_advantage_estimate",
    "group_advantages",
    "kl_estimate",
    "kto_loss",
    "masked_mean",
    "masked_sum",
    "next_token_loss",
    "orpo_loss",
    "overlong_penalty",
    "ppo_policy_loss",
    "ppo_value_loss",
    "shape_rewards",
    "simpo_loss",
    "soft_preference_loss",
    "token_log_probs",
    "truncated_importance_weights",
    "whiten",
    "win_lose_loss",
]

# Means over the tokens that count -------------------------------------------------------------------------------------


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of `values` where `mask` (bool, of the same shape) is true: over everything, or along `dim`."""
    selected = torch.where(mask, values, torch.zeros_like(values))
    return selected.sum() if dim is None else selected.sum(dim)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` (bool, of the same shape) is true: a scalar; 0 for a mask without a true place."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance of `values` over `mask`: a scalar; 0 where fewer than two places count."""
    deviations = values - masked_mean(values, mask)
    return masked_sum(deviations.square(), mask) / (mask.sum() - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values scaled to unit variance over a mask, and shifted to a mean of zero unless told otherwise.

    `values (B, S)`, `mask (B, S)` bool -> `(B, S)`, zero outside the mask. The variance is unbiased and 1e-8 is added
    to it, as in Ziegler et al. 2019's code and in TRL. Padding has no part in mean and variance (where it has, as in
    AlpacaFarm's code, the result depends on how a batch is padded).
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return torch.where(mask, whitened if shift_mean else whitened + mean, torch.zeros_like(values))


# Proximal policy optimisation -----------------------------------------------------------------------------------------

KL_KINDS = ("k1", "k2", "k3")


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor, *, kind: str = "k1") -> Tensor:
    """Estimates of KL(policy || reference) at tokens that the policy chose, in nats: `(B, S)`.

    With `log r = reference - policy` (Schulman 2020, "Approximating KL divergence"): `k1 = -log r`, unbiased and of
    either sign; `k2 = (log r)^2 / 2`, biased, of small variance; `k3 = r - 1 - log r`, unbiased and never negative.
    None is clamped (AlpacaFarm's code clamps k1 at zero, which makes it biased). Raises `ValueError` for another kind.
    """
    log_ratio = reference_log_probs - log_probs
    if kind == "k1":
        return -log_ratio
    if kind == "k2":
        return log_ratio.square() / 2
    if kind == "k3":
        return torch.expm1(log_ratio) - log_ratio
    raise ValueError(f"There is no estimate {kind!r} of the KL; there are {', '.join(KL_KINDS)}.")


def shape_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, kl_coefficient: float) -> Tensor:
    """Rewards of tokens: `-kl_coefficient x kl` each, and a completion's score on its last token: `(B, S)`.

    `scores (B,)`, `kl (B, S)`, `mask (B, S)` -> zero outside the mask (Ziegler et al. 2019, equation 2; Stiennon et
    al. 2020, section 3.4). The last token is the last place where the mask is true; TRL from 0.12 on puts the score
    one place after it. A row without a true place has no token to reward and stays zero.
    """
    rewards = torch.where(mask, -kl_coefficient * kl, torch.zeros_like(kl))
    places = torch.arange(mask.size(1), device=mask.device)
    last = torch.where(mask, places, -1).amax(dim=1, keepdim=True)
    return rewards + (places == last) * scores[:, None].to(rewards.dtype)


@torch.no_grad()
def generalized_advantage_estimate(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, gae_lambda: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of tokens, each `(B, S)`; not whitened, zero outside the mask, without gradients.

    `rewards (B, S)`, `values (B, S)`: the value before the token is chosen, `mask (B, S)`. With `gae_lambda`
    lambda: `delta_t = r_t + gamma V_{t+1} - V_t`, `A_t = delta_t + gamma lambda A_{t+1}`, returns
    `A_t + V_t` (Schulman et al. 2016, equations 11 and 16). The next token is the next one in the mask: what stands
    between two
    turns of the policy takes no time. After the last one everything is zero, as an answer ends there.
    """
    advantages = torch.zeros_like(values)
    next_value = torch.zeros_like(values[:, 0])
    next_advantage = torch.zeros_like(next_value)
    for place in reversed(range(values.size(1))):
        counts, value = mask[:, place], values[:, place]
        delta = rewards[:, place] + gamma * next_value - value
        advantage = delta + gamma * gae_lambda * next_advantage
        next_value = torch.where(counts, value, next_value)
        next_advantage = torch.where(counts, advantage, next_advantage)
        advantages[:, place] = torch.where(counts, advantage, torch.zeros_like(advantage))
    return advantages, torch.where(mask, advantages + values, torch.zeros_like(values))


def group_advantages(rewards: Tensor, mask: Tensor, group_size: int, *, baseline: str = "group") -> Tensor:
    """Each token gets its completion's advantage over the other completions of the same prompt: `(B, S)`.

    The completion's reward is the sum over its tokens, KL penalty included. A group stands in consecutive rows; one
    whose completions are all alike has nothing to teach: zero. `baseline`:

    - `group`: less the group's mean, over its standard deviation (Shao et al. 2024, "DeepSeekMath", section 4.1.2;
      there the KL is in the loss)
    - `centered`: less the group's mean alone (Liu et al. 2025, "Understanding R1-Zero-like training", section 3.2):
      the deviation weighs prompts that are nearly always or never solved more
    - `rloo`: less the mean of the others (Ahmadian et al. 2024, "Back to basics", after Kool et al. 2019)
    """
    sums = masked_sum(rewards, mask, dim=1).view(-1, group_size)
    advantages = sums - sums.mean(dim=1, keepdim=True)
    if baseline == "group":
        advantages = advantages / (sums.std(dim=1, keepdim=True) + 1e-4)
    elif baseline == "rloo":
        advantages = advantages * (group_size / (group_size - 1))
    return advantages.flatten()[:, None] * mask


def overlong_penalty(lengths: Tensor, longest: int, buffer: int) -> Tensor:
    """What long completions lose: 0 up to `longest - buffer` tokens, from there on rising to 1 at `longest`, `(B,)`.

    `lengths (B,)` in tokens (Yu et al. 2025, "DAPO", equation 13, with its sign turned).
    """
    return ((lengths - (longest - buffer)) / buffer).clamp(0, 1)


def ppo_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_range: float = 0.2,
    clip_range_high: float | None = None,
    ratio: str = "token",
    normalizer: str = "tokens",
    longest: int = 1,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate loss (Schulman et al. 2017, equation 7, with its sign turned), and the clipped share.

    Arguments `(B, S)` -> two scalars: of `max(-A rho, -A clamp(rho, 1 - clip_range, 1 + clip_range_high))`, where
    `clip_range_high` is `clip_range` unless it is given (Yu et al. 2025, "DAPO", equation 10), and the mean over the
    mask of where the clamp makes a difference. `rho` is `exp(log_probs - old_log_probs)`: of each token, or with
    `ratio="completion"` of the whole completion, which is one action then (Ahmadian et al. 2024). The loss is, by
    `normalizer`:

    - `tokens`: the mean over all tokens (DAPO, equation 12), so that long completions weigh more
    - `completions`: the mean over completions of the mean over their tokens (Shao et al. 2024, equation 3)
    - `constant`: the sum over B x `longest`, whatever the lengths are (Liu et al. 2025, section 3.2)
    """
    log_ratio = torch.where(mask, log_probs - old_log_probs, torch.zeros_like(log_probs))
    if ratio == "completion":
        log_ratio = log_ratio.sum(dim=1, keepdim=True).expand_as(log_ratio)
    rho = log_ratio.exp()
    plain = -advantages * rho
    clipped = -advantages * rho.clamp(1 - clip_range, 1 + (clip_range if clip_range_high is None else clip_range_high))
    losses = torch.maximum(plain, clipped)
    if normalizer == "tokens":
        loss = masked_mean(losses, mask)
    elif normalizer == "completions":
        loss = (masked_sum(losses, mask, dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
    else:
        loss = masked_sum(losses, mask) / (len(mask) * longest)
    return loss, masked_mean((clipped > plain).to(plain.dtype), mask)


def ppo_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip_range: float = 0.2
) -> tuple[Tensor, Tensor]:
    """The clipped loss of the value function, and the clipped share: two scalars, means over the mask.

    Arguments `(B, S)`; half of `max((V - R)^2, (V_clipped - R)^2)`, where `V_clipped` stays within `clip_range` of the
    old value (Dhariwal et al. 2017's PPO2; Huang et al. 2024, "The N+ implementation details of RLHF with PPO").
    """
    values = torch.where(mask, values, torch.zeros_like(values))  # padding must not reach the gradient as 0 x NaN
    near = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    plain, clipped = (values - returns).square(), (near - returns).square()
    loss = masked_mean(torch.maximum(plain, clipped), mask) / 2
    return loss, masked_mean((clipped > plain).to(plain.dtype), mask)


def truncated_importance_weights(
    log_probs: Tensor, drawn_log_probs: Tensor, mask: Tensor, *, ratio: str = "token", cap: float = 2.0
) -> Tensor:
    """What a token's loss weighs where another program drew it: `min(pi / mu, cap)`, `(B, S)`, zero outside the mask.

    `log_probs (B, S)` of the policy before its first step, pi, and `drawn_log_probs (B, S)` of the program that
    sampled, mu; with `ratio="completion"` of the whole completion. Without truncation the gradient would have no bias;
    a token that the program found far less likely would then outweigh a batch (Ionides 2008, "Truncated importance
    sampling"; for rollouts Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
    A weight may as well multiply the advantage: it is positive, and the clipped loss is linear in the advantage's size.
    """
    log_ratio = torch.where(mask, log_probs - drawn_log_probs, torch.zeros_like(log_probs))
    if ratio == "completion":
        log_ratio = log_ratio.sum(dim=1, keepdim=True).expand_as(log_ratio)
    return log_ratio.exp().clamp(max=cap) * mask


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """How much of the returns' variance over the mask the values predict: `1 - Var(R - V) / Var(R)`, a scalar.

    1 is a perfect value function, 0 no better than a constant, below worse. NaN where the returns are all alike.
    """
    variance = masked_variance(returns, mask)
    share = 1 - masked_variance(returns - values, mask) / variance
    return torch.where(variance > 0, share, torch.full_like(share, torch.nan))


class AdaptiveKLController:
    """A KL coefficient that is steered towards a target KL (Ziegler et al. 2019, equation 4); without one it is fixed.

    `update(kl, num_episodes)` multiplies it by `1 + e num_episodes / horizon`, with `e` the relative error
    `kl / target - 1` clipped to +-0.2, and returns it. `kl`: mean KL of a completion, in nats, as `target`;
    `horizon` in episodes. Raises `ValueError` where target or horizon is not positive.
    """

    def __init__(self, initial: float, target: float | None, horizon: float) -> None:
        if (target is not None and target <= 0) or horizon <= 0:
            raise ValueError(f"target={target:g} and horizon={horizon:g} have to be positive.")
        self.coefficient, self.target, self.horizon = initial, target, horizon

    def update(self, kl: float, num_episodes: int) -> float:
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * num_episodes / self.horizon
        return self.coefficient

    def state_dict(self) -> dict[str, float]:
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coefficient = state["coefficient"]
