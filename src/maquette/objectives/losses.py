"""The losses of all objectives, as pure functions.

Arguments `(B, S)` have one length S, aligned to predicted tokens: `logits[:, :-1]` predicts `tokens[:, 1:]`, so
S = T - 1. `mask (B, S)` is bool, true where the token counts. What stands outside a mask is never read: garbage there,
infinite or not a number, changes no value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.model.likelihoods import next_token_loss, token_log_probs

__all__ = [
    "AdaptiveKLController",
    "bradley_terry_loss",
    "dpo_loss",
    "explained_variance",
    "generalized_advantage_estimate",
    "group_advantages",
    "kl_estimate",
    "masked_mean",
    "masked_sum",
    "next_token_loss",
    "ppo_policy_loss",
    "ppo_value_loss",
    "shape_rewards",
    "soft_preference_loss",
    "token_log_probs",
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


# Preferences between two completions of one prompt --------------------------------------------------------------------

DPO_VARIANTS = ("sigmoid", "ipo", "hinge", "robust")


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, *, margin: Tensor | None = None, centering: float = 0.0
) -> Tensor:
    """Mean negative log-likelihood of preferences under Bradley and Terry's model: a scalar.

    `chosen (B,)`, `rejected (B,)`: rewards of the answers, `-log sigmoid(chosen - rejected)` (Stiennon et al. 2020,
    section 3.4; Ouyang et al. 2022, equation 1). `margin (B,)` is by how much the chosen completion was better and is
    taken off the difference (Touvron et al. 2023, Llama 2, equation 2). `centering` weighs the mean of
    `(chosen + rejected)^2`, which fixes the level that the likelihood leaves open (Eisenstein et al. 2023, section 2).
    """
    difference = chosen - rejected
    if margin is not None:
        difference = difference - margin
    loss = -F.logsigmoid(difference).mean()
    if centering:
        loss = loss + centering * (chosen + rejected).square().mean()
    return loss


def soft_preference_loss(chosen: Tensor, rejected: Tensor, probability: Tensor | float) -> Tensor:
    """Mean cross-entropy of soft labels under Bradley and Terry's model: a scalar.

    `chosen (B,)`, `rejected (B,)`: rewards; `probability (B,)`: how likely an annotator prefers the first (a share of
    votes, or 1 - noise). With probability 1 it is `bradley_terry_loss`.
    """
    difference = chosen - rejected
    return -(probability * F.logsigmoid(difference) + (1 - probability) * F.logsigmoid(-difference)).mean()


def win_lose_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean binary cross-entropy of each answer by itself, as won or lost: a scalar.

    `chosen (B,)`, `rejected (B,)`: logits that the answer is one that wins. Unlike Bradley and Terry's model it does
    not compare within a prompt, so a hard prompt's answers both look bad.
    """
    return -(F.logsigmoid(chosen) + F.logsigmoid(-rejected)).mean() / 2


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    variant: str = "sigmoid",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Direct preference optimisation: losses, and implicit rewards of chosen and rejected completions, each `(B,)`.

    Arguments `(B,)`: log-probabilities of whole answers (sums over their tokens; means for length-normalised variants,
    which the caller takes) under the policy and the reference. With h the difference of the two log-ratios:

    - `sigmoid`: `-log sigmoid(beta h)` (Rafailov et al. 2023, equation 7); with `label_smoothing` e it is cDPO,
      `-(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)` (Mitchell 2023)
    - `robust`: `(-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)) / (1 - 2 e)`, whose mean over labels flipped
      with probability e is the loss on true labels (Chowdhury et al. 2024, equation 12)
    - `ipo`: `(h - 1 / (2 beta))^2` (Azar et al. 2023, equation 17). TRL averages over tokens before; the paper sums
    - `hinge`: `max(0, 1 - beta h)` (Zhao et al. 2023, SLiC, as compared in Azar et al. 2023)

    Rewards are `beta x (policy - reference)`, detached. Raises `ValueError` for an unknown variant, and for label
    smoothing where it has no meaning (`ipo`, `hinge`) or no solution (`robust` from 0.5 on).
    """
    if variant not in DPO_VARIANTS:
        raise ValueError(f"DPO has no variant {variant!r}; there are {', '.join(DPO_VARIANTS)}.")
    if label_smoothing and variant in ("ipo", "hinge"):
        raise ValueError(f"label_smoothing has no meaning for the variant {variant}.")
    if not 0 <= label_smoothing < (0.5 if variant == "robust" else 1):
        raise ValueError(f"label_smoothing={label_smoothing:g} is out of range for the variant {variant}.")
    chosen_ratio, rejected_ratio = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    difference = chosen_ratio - rejected_ratio
    if variant == "ipo":
        losses = (difference - 1 / (2 * beta)).square()
    elif variant == "hinge":
        losses = torch.relu(1 - beta * difference)
    else:
        won, lost = F.logsigmoid(beta * difference), F.logsigmoid(-beta * difference)
        if variant == "sigmoid":
            losses = -(1 - label_smoothing) * won - label_smoothing * lost
        else:
            losses = (-(1 - label_smoothing) * won + label_smoothing * lost) / (1 - 2 * label_smoothing)
    return losses, beta * chosen_ratio.detach(), beta * rejected_ratio.detach()


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


def group_advantages(rewards: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """Each token gets its completion's advantage over the other completions of the same prompt: `(B, S)`.

    The completion's reward is the sum over its tokens, KL penalty included; less the group's mean and over its standard
    deviation (Shao et al. 2024, "DeepSeekMath", section 4.1.2; there the KL is in the loss). A group stands in
    consecutive rows. One whose completions are all alike has nothing to teach: zero.
    """
    sums = masked_sum(rewards, mask, dim=1).view(-1, group_size)
    centred = sums - sums.mean(dim=1, keepdim=True)
    advantages = centred / (sums.std(dim=1, keepdim=True) + 1e-4)
    return advantages.flatten()[:, None] * mask


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
