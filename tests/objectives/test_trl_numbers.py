"""The losses give the numbers that TRL gives (trl_numbers.json, by make_trl_numbers.py), where TRL follows the papers;
where it does not, the tests say how the two differ."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maquette.objectives.losses import (
    AdaptiveKLController,
    bradley_terry_loss,
    dpo_loss,
    generalized_advantage_estimate,
    kl_estimate,
    masked_mean,
    masked_sum,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    token_log_probs,
    whiten,
)

NUMBERS: dict[str, Any] = json.loads(Path(__file__).with_name("trl_numbers.json").read_text(encoding="utf-8"))


def tensor(values: Any) -> Tensor:
    values_tensor = torch.tensor(values)
    return values_tensor.double() if values_tensor.is_floating_point() else values_tensor


def exact(values: Any) -> Any:
    """Doubles that went through JSON come back the same."""
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    assert torch.allclose(actual, exact(expected), rtol=0, atol=tolerance)


SINGLE = 1e-6
"""TRL counts tokens in single precision where it corrects a variance or takes a share."""


def test_fine_tuning() -> None:
    given = NUMBERS["sft"]
    log_probs = token_log_probs(exact(given["logits"]), tensor(given["tokens"]))
    close(log_probs, given["log_probs"])
    close(-masked_mean(log_probs, tensor(given["mask"])), given["loss"])


def test_reward_model() -> None:
    given = NUMBERS["reward"]
    chosen, rejected = exact(given["chosen"]), exact(given["rejected"])
    close(bradley_terry_loss(chosen, rejected), given["loss"])
    close(bradley_terry_loss(chosen, rejected, centering=0.1), given["loss_centering_0.1"])
    close(bradley_terry_loss(chosen, rejected, margin=exact(given["margin"])), given["loss_margin"])


@pytest.mark.parametrize("variant", ["sigmoid", "ipo", "hinge", "robust", "sigmoid_norm"])
def test_preference_optimisation(variant: str) -> None:
    given = NUMBERS["dpo"]
    mask = tensor(given["mask"])
    policy, reference = (masked_sum(exact(given[name]), mask, dim=1) for name in ("policy", "reference"))
    if variant in ("ipo", "sigmoid_norm"):
        # TRL's IPO takes means over tokens; the paper's is about whole answers. Given means, ours is the same.
        policy, reference = policy / mask.sum(1), reference / mask.sum(1)
    losses, chosen, rejected = dpo_loss(
        *policy.chunk(2), *reference.chunk(2), beta=given["beta"], variant=variant.removesuffix("_norm"),
        label_smoothing=given["label_smoothing"] if variant == "robust" else 0.0,
    )  # fmt: skip
    close(losses, given[variant])
    if variant == "sigmoid":
        close(chosen, given["rewards/chosen"])
        close(rejected, given["rewards/rejected"])


def test_rewards_and_advantages_of_policies() -> None:
    given = NUMBERS["ppo"]
    log_probs, reference = exact(given["logprobs"]), exact(given["ref_logprobs"])
    mask = torch.ones_like(log_probs, dtype=torch.bool)
    kl = kl_estimate(log_probs, reference)
    close(kl, given["kl"])
    close(kl_estimate(log_probs, reference, kind="k3"), given["kl_k3"])
    rewards = shape_rewards(exact(given["scores"]), kl, mask, kl_coefficient=given["kl_coefficient"])
    close(rewards, given["rewards"])
    advantages, returns = generalized_advantage_estimate(
        rewards, exact(given["values"]), mask, gamma=given["gamma"], gae_lambda=given["gae_lambda"]
    )
    close(returns, given["returns"])
    close(whiten(advantages, mask), given["whitened_advantages"], SINGLE)


def test_losses_of_policies() -> None:
    given = NUMBERS["ppo"]
    mask, advantages = tensor(given["minibatch_mask"]), exact(given["whitened_advantages"])
    loss, clipped = ppo_policy_loss(
        exact(given["new_logprobs"]), exact(given["logprobs"]), advantages, mask, clip_range=given["clip_range"]
    )
    close(loss, given["pg_loss"])
    assert clipped.item() == pytest.approx(given["pg_clipfrac"], abs=SINGLE)
    loss, clipped = ppo_value_loss(
        exact(given["vpred"]), exact(given["values"]), exact(given["returns"]), mask, clip_range=given["clip_range"]
    )
    close(loss, given["vf_loss"])
    assert clipped.item() == pytest.approx(given["vf_clipfrac"], abs=SINGLE)


def test_classic_advantages() -> None:
    """Inside the mask: outside of it TRL leaves what happened to come out."""
    given = NUMBERS["classic"]
    mask = tensor(given["mask"])
    advantages, returns = generalized_advantage_estimate(
        exact(given["rewards"]), exact(given["values"]), mask, gamma=given["gamma"], gae_lambda=given["gae_lambda"]
    )
    close(returns[mask], exact(given["returns"])[mask].tolist())
    close(whiten(advantages, mask)[mask], exact(given["whitened_advantages"])[mask].tolist(), SINGLE)


def test_classic_controller() -> None:
    given = NUMBERS["classic"]["controller"]
    controller = AdaptiveKLController(given["initial"], given["target"], given["horizon"])
    assert [controller.update(kl, given["episodes"]) for kl in given["kl"]] == pytest.approx(given["path"], abs=1e-15)
