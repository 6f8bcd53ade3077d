"""What proximal policy optimisation is made of: divergence, rewards of tokens, advantages, clipped losses.

Every argument `(B, S)` is aligned to predicted tokens: place s stands for the token that the logits of place s
predict. `mask (B, S)` is true for the tokens that the policy chose.
"""

import torch
from torch import Tensor

from maquette.objectives.masks import masked_mean, masked_variance

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
    raise ValueError(f"There is no estimate {kind!r} of the divergence; there are {', '.join(KL_KINDS)}.")


def shape_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, kl_coefficient: float) -> Tensor:
    """Rewards of tokens: `-kl_coefficient x kl` each, and an answer's score on its last token: `(B, S)`.

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


def ppo_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, *, clip_range: float = 0.2
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate loss (Schulman et al. 2017, equation 7, with its sign turned), and the clipped share.

    Arguments `(B, S)` -> two scalars, means over the mask: of
    `max(-A rho, -A clamp(rho, 1 - clip_range, 1 + clip_range))` with
    `rho = exp(log_probs - old_log_probs)`, and of where the clamp makes a difference.
    """
    log_ratio = torch.where(mask, log_probs - old_log_probs, torch.zeros_like(log_probs))
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return masked_mean(torch.maximum(plain, clipped), mask), masked_mean((clipped > plain).to(plain.dtype), mask)


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


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy of the next token's distribution in nats: `logits (B, S, V)` -> `(B, S)`."""
    log_probs = logits.log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """How much of the returns' variance over the mask the values foretell: `1 - Var(R - V) / Var(R)`, a scalar.

    1 is a perfect value function, 0 no better than a constant, below worse. NaN where the returns are all alike.
    """
    variance = masked_variance(returns, mask)
    share = 1 - masked_variance(returns - values, mask) / variance
    return torch.where(variance > 0, share, torch.full_like(share, torch.nan))


class AdaptiveKLController:
    """A KL coefficient that is steered towards a target divergence (Ziegler et al. 2019, equation 4).

    `update(kl, num_episodes)` multiplies it by `1 + e num_episodes / horizon`, with `e` the relative error
    `kl / target - 1` clipped to +-0.2, and returns it. `kl`: mean divergence of an answer, in nats, as `target`;
    `horizon` in episodes. Raises `ValueError` where target or horizon is not positive.
    """

    def __init__(self, initial: float, target: float, horizon: float) -> None:
        if target <= 0 or horizon <= 0:
            raise ValueError(f"target={target:g} and horizon={horizon:g} have to be positive.")
        self.coefficient, self.target, self.horizon = initial, target, horizon

    def update(self, kl: float, num_episodes: int) -> float:
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coefficient *= 1 + error * num_episodes / self.horizon
        return self.coefficient

    def state_dict(self) -> dict[str, float]:
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coefficient = state["coefficient"]
