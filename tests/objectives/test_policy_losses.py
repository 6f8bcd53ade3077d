"""The parts of PPO in float64 against cases worked out by hand, and what must hold for any."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from maquette.objectives.losses import (
    AdaptiveKLController,
    explained_variance,
    generalized_advantage_estimate,
    kl_estimate,
    masked_mean,
    ppo_policy_loss,
    ppo_value_loss,
    shape_rewards,
    token_log_probs,
    whiten,
)


def doubles(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def bools(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def some(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MASK = bools([0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1])


def test_log_probs_are_those_of_the_next_tokens() -> None:
    logits = doubles([0.0, 0.0], [math.log(3), 0.0])[None]
    result = token_log_probs(logits, torch.tensor([[1, 0]]))
    assert result.tolist() == [pytest.approx([math.log(0.5), math.log(0.75)])]


def test_kl_estimates_by_hand() -> None:
    policy, reference = doubles([math.log(0.5)]), doubles([math.log(0.25)])
    assert kl_estimate(policy, reference).item() == pytest.approx(math.log(2))
    assert kl_estimate(policy, reference, kind="k2").item() == pytest.approx(math.log(2) ** 2 / 2)
    assert kl_estimate(policy, reference, kind="k3").item() == pytest.approx(0.5 - 1 + math.log(2))
    with pytest.raises(ValueError, match="'k4'"):
        kl_estimate(policy, reference, kind="k4")


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_unbiased_estimates(kind: str) -> None:
    """Their mean over the policy's distribution is the KL divergence."""
    policy, reference = some(1, 8).log_softmax(0), some(2, 8).log_softmax(0)
    kl = (policy.exp() * (policy - reference)).sum()
    mean = (policy.exp() * kl_estimate(policy, reference, kind=kind)).sum()
    assert mean.item() == pytest.approx(kl.item(), abs=1e-12)


@given(st.floats(-8, 8))
def test_signs_of_the_estimates(difference: float) -> None:
    """k1 is not clamped at zero; the other two are never negative."""
    values = {kind: kl_estimate(doubles([difference]), doubles([0.0]), kind=kind).item() for kind in ("k1", "k2", "k3")}
    assert values["k1"] == difference and values["k2"] >= 0 and values["k3"] >= 0


def test_the_score_stands_on_the_last_token_and_only_there() -> None:
    scores = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
    result = shape_rewards(scores, torch.ones_like(MASK, dtype=torch.float64), MASK, kl_coefficient=0.5)
    assert result.tolist() == [[0, 0, -0.5, -0.5, 9.5, 0], [0, -0.5, 19.5, 0, 0, 0], [0, 0, 0, 0, 0, 29.5]]


def test_garbage_in_padding_changes_nothing() -> None:
    """Values and gradients: padding may hold anything."""
    inputs = [some(seed, 3, 6) for seed in range(4)]
    dirty = [torch.where(MASK, x, torch.tensor([math.nan, math.inf, -math.inf] * 2)) for x in inputs]
    scores = torch.ones(3, dtype=torch.float64)
    results = []
    for log_probs, old, advantages, values in (inputs, dirty):
        leaves = [log_probs.clone().requires_grad_(), values.clone().requires_grad_()]
        policy, _ = ppo_policy_loss(leaves[0], old, advantages, MASK)
        value, _ = ppo_value_loss(leaves[1], values, advantages, MASK)
        (policy + value).backward()
        rewards = shape_rewards(scores, old, MASK, kl_coefficient=0.1)
        results.append(
            [policy, value, rewards, whiten(advantages, MASK), masked_mean(values, MASK)]
            + [leaf.grad for leaf in leaves]
            + list(generalized_advantage_estimate(rewards, values, MASK))
        )
    for clean, soiled in zip(*results, strict=True):
        assert clean is not None and torch.equal(clean, soiled)


def test_an_answer_without_tokens_gets_nothing() -> None:
    nothing = bools([0, 0], [0, 1])
    rewards = shape_rewards(torch.ones(2), torch.ones(2, 2), nothing, kl_coefficient=1.0)
    assert rewards.tolist() == [[0, 0], [0, 0]]
    advantages, returns = generalized_advantage_estimate(rewards, torch.ones(2, 2), nothing)
    assert advantages[0].tolist() == returns[0].tolist() == [0, 0]


def test_advantages_by_hand() -> None:
    rewards, values, mask = doubles([9, 1, 2, 9]), doubles([9, 0.5, 0.25, 9]), bools([0, 1, 1, 0])
    advantages, returns = generalized_advantage_estimate(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    last = 2 - 0.25
    first = 1 + 0.9 * 0.25 - 0.5 + 0.9 * 0.8 * last
    assert advantages[0].tolist() == pytest.approx([0, first, last, 0])
    assert returns[0].tolist() == pytest.approx([0, first + 0.5, last + 0.25, 0])


def test_with_trace_one_returns_are_sums_of_rewards() -> None:
    rewards, values = some(3, 3, 6) * MASK, some(4, 3, 6)
    advantages, returns = generalized_advantage_estimate(rewards, values, MASK, gamma=1.0, gae_lambda=1.0)
    expected = rewards.flip(1).cumsum(1).flip(1) * MASK
    assert torch.allclose(returns, expected, atol=1e-12)
    assert torch.allclose(advantages, (expected - values) * MASK, atol=1e-12)


def test_padding_on_either_side_does_not_matter() -> None:
    rewards, values, mask = some(5, 1, 4), some(6, 1, 4), bools([1, 1, 1, 1])
    plain, _ = generalized_advantage_estimate(rewards, values, mask)
    padding = torch.zeros(1, 3, dtype=torch.float64)
    none = torch.zeros(1, 3, dtype=torch.bool)
    for before, after in ((3, 0), (0, 3), (3, 3)):
        sides = [padding[:, :before], padding[:, :after]]
        wide = [torch.cat([sides[0], x, sides[1]], 1) for x in (rewards, values)]
        wide_mask = torch.cat([none[:, :before], mask, none[:, :after]], 1)
        result, _ = generalized_advantage_estimate(*wide, wide_mask)
        assert torch.equal(result[:, before : before + 4], plain)


def test_turns_of_others_take_no_time() -> None:
    rewards, values = some(7, 1, 4), some(8, 1, 4)
    joined, _ = generalized_advantage_estimate(rewards, values, bools([1, 1, 1, 1]), gamma=0.9)
    apart = [
        torch.cat([x[:, :2], torch.full((1, 2), 5.0, dtype=torch.float64), x[:, 2:]], 1) for x in (rewards, values)
    ]
    result, _ = generalized_advantage_estimate(*apart, bools([1, 1, 0, 0, 1, 1]), gamma=0.9)
    assert torch.equal(result[:, [0, 1, 4, 5]], joined) and not result[:, 2:4].any()


def test_advantages_have_no_gradient() -> None:
    values = some(9, 1, 4).requires_grad_()
    advantages, returns = generalized_advantage_estimate(some(5, 1, 4), values, bools([1, 1, 1, 1]))
    assert not advantages.requires_grad and not returns.requires_grad


def test_whitening() -> None:
    values = some(10, 3, 6) * 3 + 5
    for shift in (True, False):
        result = whiten(values, MASK, shift_mean=shift)
        assert not result[~MASK].any()
        assert result[MASK].var().item() == pytest.approx(1, abs=1e-6)
        assert result[MASK].mean().item() == pytest.approx(0 if shift else values[MASK].mean().item(), abs=1e-6)
    one = bools([1, 0, 0, 0, 0, 0])
    assert whiten(values[:1], one).tolist() == [[0.0] * 6]
    assert whiten(values[:1], one & False).tolist() == [[0.0] * 6]


def test_policy_loss_by_hand() -> None:
    old = doubles([0.0, 0.0, 0.0, 0.0])
    new = doubles([math.log(1.5), math.log(1.5), math.log(0.5), math.log(1.1)])
    advantages = doubles([1, -1, -1, 2])
    loss, clipped = ppo_policy_loss(new, old, advantages, bools([1, 1, 1, 1]))
    assert loss.item() == pytest.approx((-1.2 + 1.5 + 0.8 - 2.2) / 4)
    assert clipped.item() == pytest.approx(2 / 4)


def test_clipped_tokens_do_not_pull() -> None:
    new = doubles([math.log(1.5), 0.0]).requires_grad_()
    loss, _ = ppo_policy_loss(new, torch.zeros(1, 2, dtype=torch.float64), doubles([1, 1]), bools([1, 1]))
    loss.backward()
    assert new.grad is not None and new.grad.tolist() == [[0.0, -0.5]]


def test_learning_rate_zero() -> None:
    """The policy has not moved: ratio 1, nothing clipped, KL divergence 0, and the loss is minus the mean advantage."""
    log_probs, advantages = some(11, 3, 6), some(12, 3, 6)
    loss, clipped = ppo_policy_loss(log_probs, log_probs, advantages, MASK)
    assert loss.item() == pytest.approx(-advantages[MASK].mean().item()) and clipped.item() == 0
    assert not kl_estimate(log_probs, log_probs).any()


def test_value_loss_by_hand() -> None:
    values, old, returns = doubles([1.0, 0.1]), doubles([0.0, 0.0]), doubles([2.0, 1.0])
    loss, clipped = ppo_value_loss(values, old, returns, bools([1, 1]))
    assert loss.item() == pytest.approx(((0.2 - 2) ** 2 + (0.1 - 1) ** 2) / 2 / 2)
    assert clipped.item() == 0.5


def test_parts_of_a_batch_weighed_by_their_tokens_make_the_whole() -> None:
    """A mean of means would not: rows have different numbers of tokens."""
    new, old, advantages = some(13, 3, 6), some(14, 3, 6), some(15, 3, 6)
    whole, _ = ppo_policy_loss(new, old, advantages, MASK)
    parts = [
        ppo_policy_loss(*(x[r : r + 1] for x in (new, old, advantages, MASK)))[0] * MASK[r].sum() for r in range(3)
    ]
    assert (sum(parts) / MASK.sum()).item() == pytest.approx(whole.item())  # type: ignore[union-attr]
    means = [part / MASK[r].sum() for r, part in enumerate(parts)]
    assert abs(sum(means) / 3 - whole) > 1e-3  # type: ignore[operator]


def test_gradients() -> None:
    new, old, advantages = some(16, 3, 6).requires_grad_(), some(17, 3, 6), some(18, 3, 6)
    assert torch.autograd.gradcheck(lambda x: ppo_policy_loss(x, old, advantages, MASK)[0], [new])
    assert torch.autograd.gradcheck(lambda x: ppo_value_loss(x, old, advantages, MASK)[0], [new])
    for kind in ("k1", "k2", "k3"):
        assert torch.autograd.gradcheck(lambda x, kind=kind: kl_estimate(x, old, kind=kind), [new])


def test_explained_variance() -> None:
    returns = some(19, 3, 6)
    assert explained_variance(returns, returns, MASK).item() == pytest.approx(1)
    assert explained_variance(torch.zeros_like(returns), returns, MASK).item() == pytest.approx(0)
    assert explained_variance(-returns, returns, MASK).item() == pytest.approx(-3)
    assert math.isnan(explained_variance(returns, torch.ones_like(returns), MASK).item())


def test_the_controller_steers_to_its_target() -> None:
    controller = AdaptiveKLController(0.1, target=6.0, horizon=1000)
    assert controller.update(6.0, 100) == 0.1
    assert controller.update(6.6, 100) == pytest.approx(0.1 * (1 + 0.1 * 0.1))
    assert controller.update(600.0, 100) == pytest.approx(0.1 * 1.01 * 1.02)
    assert controller.update(0.0, 100) == pytest.approx(0.1 * 1.01 * 1.02 * 0.98)
    again = AdaptiveKLController(9.0, target=6.0, horizon=1000)
    again.load_state_dict(controller.state_dict())
    assert again.coefficient == controller.coefficient
    with pytest.raises(ValueError, match="positive"):
        AdaptiveKLController(0.1, target=0.0, horizon=10)
