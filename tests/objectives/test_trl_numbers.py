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
    group_advantages,
    kl_estimate,
    kto_loss,
    masked_mean,
    masked_sum,
    orpo_loss,
    overlong_penalty,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    simpo_loss,
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
    log_probs = exact(given["policy"]).requires_grad_()
    policy, reference = (masked_sum(one, mask, dim=1) for one in (log_probs, exact(given["reference"])))
    if variant in ("ipo", "sigmoid_norm"):
        # TRL's IPO takes means over tokens; the paper's is about whole answers. Given means, ours is the same.
        policy, reference = policy / mask.sum(1), reference / mask.sum(1)
    losses, chosen, rejected = dpo_loss(
        *policy.chunk(2), *reference.chunk(2), beta=given["beta"], variant=variant.removesuffix("_norm"),
        label_smoothing=given["label_smoothing"] if variant == "robust" else 0.0,
    )  # fmt: skip
    close(losses, given[variant])
    losses.sum().backward()
    close(log_probs.grad, given[f"{variant}/gradient"])
    if variant == "sigmoid":
        close(chosen, given["rewards/chosen"])
        close(rejected, given["rewards/rejected"])


@pytest.mark.parametrize("kind", ["simpo", "orpo"])
def test_preferences_without_a_reference(kind: str) -> None:
    given = NUMBERS["without_reference"]
    logits, mask = exact(given["logits"]).requires_grad_(), tensor(given["mask"])
    means = masked_sum(token_log_probs(logits[:, :-1], tensor(given["tokens"])[:, 1:]), mask, dim=1) / mask.sum(1)
    if kind == "simpo":
        losses, chosen, _ = simpo_loss(*means.chunk(2), beta=given["beta"], gamma=given["gamma"])
        assert torch.equal(chosen, given["beta"] * means[: len(chosen)].detach())
    else:
        losses, _, _ = orpo_loss(*means.chunk(2), beta=given["beta"])
    # TRL's odds are in single precision.
    close(losses, given[kind], 1e-12 if kind == "simpo" else SINGLE)
    losses.sum().backward()
    close(logits.grad, given[f"{kind}/gradient"], 1e-12 if kind == "simpo" else SINGLE)


@pytest.mark.parametrize("case", [0, 1])
def test_completions_that_are_good_or_bad_by_themselves(case: int) -> None:
    given = NUMBERS["kto"]
    expected, mask = given["cases"][case], tensor(given["mask"])
    log_probs = exact(given["policy"]).requires_grad_()
    mismatched = exact(given["mismatched"]) + expected["shift"] - exact(given["mismatched_reference"])
    kl = masked_sum(mismatched, mask, dim=1).mean().clamp(min=0)
    assert kl.item() == pytest.approx(expected["kl"], abs=1e-12)
    losses, _ = kto_loss(
        masked_sum(log_probs, mask, dim=1), masked_sum(exact(given["reference"]), mask, dim=1), tensor(given["label"]),
        kl, **{name: given[name] for name in ("beta", "desirable_weight", "undesirable_weight")},
    )  # fmt: skip
    close(losses.mean(), expected["loss"])
    losses.mean().backward()
    close(log_probs.grad, expected["gradient"])


@pytest.mark.parametrize("baseline", ["group", "centered", "rloo"])
def test_advantages_within_groups(baseline: str) -> None:
    given = NUMBERS["group"]
    mask = tensor(given["mask"])
    rewards = shape_rewards(exact(given["rewards"]), torch.zeros(mask.shape).double(), mask, kl_coefficient=0.0)
    advantages = group_advantages(rewards, mask, given["group_size"], baseline=baseline)
    close(advantages, (exact(given["advantages"][baseline])[:, None] * mask).tolist())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("grpo", {"normalizer": "completions"}),
        ("bnpo", {"normalizer": "tokens"}),
        ("dapo", {"normalizer": "tokens"}),
        ("dr_grpo", {"normalizer": "constant"}),
        ("rloo", {"normalizer": "completions", "ratio": "completion"}),
    ],
)
def test_losses_within_groups(kind: str, settings: dict[str, str]) -> None:
    given = NUMBERS["group"]
    mask, log_probs = tensor(given["mask"]), exact(given["new"]).requires_grad_()
    advantages = exact(given["advantages"]["centered"])[:, None] * mask
    old_log_probs = exact(given["similar" if kind == "rloo" else "old"])
    loss, _ = ppo_policy_loss(
        log_probs, old_log_probs, advantages, mask, clip_range=given["clip_range"],
        clip_range_high=given["clip_range_high"], longest=given["longest"], **settings,
    )  # fmt: skip
    close(loss, given[kind])
    loss.backward()
    assert log_probs.grad is not None and log_probs.grad.any()
    close(log_probs.grad, given[f"{kind}/gradient"])


def test_what_long_completions_lose() -> None:
    given = NUMBERS["group"]["overlong"]
    penalty = overlong_penalty(tensor(given["lengths"]), given["longest"], given["buffer"])
    close(-penalty.double(), given["penalty"])


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
