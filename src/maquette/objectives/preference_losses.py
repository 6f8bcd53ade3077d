"""The losses of preferences, as pure functions: of pairs of rewards (reward models), of pairs of completions (DPO and
its relatives), and of completions that are good or bad by themselves (KTO).

Log-probabilities `(B,)` are of whole completions: sums over their tokens, or where a loss is length-normalised means,
which the caller takes. Rewards are returned for people to read: detached.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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


def simpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, *, beta: float, gamma: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Simple preference optimisation: losses, and rewards of chosen and rejected completions, each `(B,)`.

    `policy_chosen (B,)`, `policy_rejected (B,)`: mean log-probabilities of a completion's tokens. There is no
    reference: the reward is `beta x policy`, and the loss `-log sigmoid(chosen reward - rejected reward - gamma)`
    (Meng et al. 2024, equation 6). `gamma` is the margin by which the chosen reward has to be the higher one.
    """
    losses = -F.logsigmoid(beta * (policy_chosen - policy_rejected) - gamma)
    return losses, beta * policy_chosen.detach(), beta * policy_rejected.detach()


_LARGEST_LOG_PROB = -1e-6
"""In float32 the odds of a completion more certain than that are infinite."""


def orpo_loss(policy_chosen: Tensor, policy_rejected: Tensor, *, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Odds ratio preference optimisation: losses, and rewards of chosen and rejected completions, each `(B,)`.

    `policy_chosen (B,)`, `policy_rejected (B,)`: mean log-probabilities of a completion's tokens, and P their
    exponential. There is no reference; with `odds = P / (1 - P)` the loss is the fine-tuning loss of the chosen
    completion and `beta` (the paper's lambda) times the odds ratio's,
    `-log P(chosen) - beta log sigmoid(log odds(chosen) - log odds(rejected))` (Hong et al. 2024, equations 4, 6
    and 7). TRL takes the first term over the prompt's tokens too, and over all tokens of a batch. Rewards are
    `beta x policy`, as in TRL.
    """
    chosen, rejected = policy_chosen.clamp(max=_LARGEST_LOG_PROB), policy_rejected.clamp(max=_LARGEST_LOG_PROB)
    log_odds = (chosen - rejected) - (torch.log(-torch.expm1(chosen)) - torch.log(-torch.expm1(rejected)))
    losses = -policy_chosen - beta * F.logsigmoid(log_odds)
    return losses, beta * policy_chosen.detach(), beta * policy_rejected.detach()


def kto_loss(
    policy: Tensor,
    reference: Tensor,
    desirable: Tensor,
    kl: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Kahneman-Tversky optimisation: losses, and implicit rewards `beta x (policy - reference)`, each `(B,)`.

    `policy (B,)`, `reference (B,)`: log-probabilities of whole completions; `desirable (B,)` bool: whether each is a
    good one, alone, without a rival. With r the log-ratio and z the `kl` (a scalar in nats, not below 0, without a
    gradient) a good completion's loss is `desirable_weight (1 - sigmoid(beta (r - z)))` and a bad one's
    `undesirable_weight (1 - sigmoid(beta (z - r)))` (Ethayarajh et al. 2024, equation 7). What z is estimated from the
    paper's section 4.1 says: completions of other prompts, as `kto.py` makes them.
    """
    ratio = policy - reference
    losses = torch.sigmoid(beta * torch.where(desirable, kl - ratio, ratio - kl))
    return torch.where(desirable, desirable_weight * losses, undesirable_weight * losses), beta * ratio.detach()
