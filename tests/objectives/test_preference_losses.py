"""Preference losses in float64 against cases worked out by hand, and what must hold for any."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maquette.objectives.losses import (
    bradley_terry_loss,
    dpo_loss,
    kto_loss,
    orpo_loss,
    simpo_loss,
    soft_preference_loss,
    win_lose_loss,
)

FLOATS = st.floats(-20, 20)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_bradley_terry_by_hand() -> None:
    chosen, rejected = doubles(1.0, 0.0), doubles(0.0, 2.0)
    expected = (-log_sigmoid(1.0) - log_sigmoid(-2.0)) / 2
    assert bradley_terry_loss(chosen, rejected).item() == pytest.approx(expected, abs=1e-15)
    with_margin = (-log_sigmoid(0.5) - log_sigmoid(-2.25)) / 2
    assert bradley_terry_loss(chosen, rejected, margin=doubles(0.5, 0.25)).item() == pytest.approx(with_margin)
    centred = bradley_terry_loss(chosen, rejected, centering=0.1).item()
    assert centred == pytest.approx(expected + 0.1 * (1 + 4) / 2)


@given(FLOATS, FLOATS, st.floats(-5, 5))
def test_only_differences_count_until_they_are_centred(chosen: float, rejected: float, shift: float) -> None:
    one, other = doubles(chosen), doubles(rejected)
    plain, moved = bradley_terry_loss(one, other), bradley_terry_loss(one + shift, other + shift)
    assert moved.item() == pytest.approx(plain.item(), abs=1e-12)
    centre = (one + other) / 2
    best = bradley_terry_loss(one - centre, other - centre, centering=0.5)
    assert best <= bradley_terry_loss(one, other, centering=0.5) + 1e-12


@given(FLOATS, FLOATS, st.floats(0, 1))
def test_soft_labels(chosen: float, rejected: float, probability: float) -> None:
    one, other = doubles(chosen), doubles(rejected)
    soft = soft_preference_loss(one, other, doubles(probability))
    mixed = probability * bradley_terry_loss(one, other) + (1 - probability) * bradley_terry_loss(other, one)
    assert soft.item() == pytest.approx(mixed.item(), abs=1e-12)


def test_soft_labels_are_reached_at_their_log_odds() -> None:
    difference = doubles(math.log(0.66 / 0.34)).requires_grad_()
    soft_preference_loss(difference, doubles(0.0), 0.66).backward()
    assert difference.grad is not None and difference.grad.item() == pytest.approx(0, abs=1e-12)


def test_win_or_lose_judges_each_answer_alone() -> None:
    assert win_lose_loss(doubles(0.0), doubles(0.0)).item() == pytest.approx(math.log(2))
    expected = -(log_sigmoid(1.5) + log_sigmoid(0.5)) / 2
    assert win_lose_loss(doubles(1.5), doubles(-0.5)).item() == pytest.approx(expected)
    assert win_lose_loss(doubles(3.0), doubles(2.0)) > win_lose_loss(doubles(1.0), doubles(0.0))


def losses(variant: str = "sigmoid", smoothing: float = 0.0, beta: float = 0.5) -> torch.Tensor:
    """h = (-1 + 3) - (-4 + 3) = 3"""
    return dpo_loss(
        doubles(-1.0), doubles(-4.0), doubles(-3.0), doubles(-3.0), beta=beta, variant=variant,
        label_smoothing=smoothing,
    )[0]  # fmt: skip


def test_dpo_by_hand() -> None:
    won, lost = log_sigmoid(1.5), log_sigmoid(-1.5)
    assert losses().item() == pytest.approx(-won)
    assert losses(smoothing=0.1).item() == pytest.approx(-0.9 * won - 0.1 * lost)
    assert losses("robust", 0.1).item() == pytest.approx((-0.9 * won + 0.1 * lost) / 0.8)
    assert losses("ipo").item() == pytest.approx((3 - 1) ** 2)
    assert losses("hinge", beta=0.2).item() == pytest.approx(0.4)
    assert losses("hinge").item() == 0.0


def test_losses_without_a_reference_by_hand() -> None:
    assert simpo_loss(doubles(-1.0), doubles(-4.0), beta=2.0, gamma=1.0)[0].item() == pytest.approx(-log_sigmoid(5.0))
    odds = [math.log(p / (1 - p)) for p in (0.5, 0.2)]
    result, *rewards = orpo_loss(doubles(math.log(0.5)), doubles(math.log(0.2)), beta=0.3)
    assert result.item() == pytest.approx(math.log(2) - 0.3 * log_sigmoid(odds[0] - odds[1]))
    assert [one.item() for one in rewards] == pytest.approx([0.3 * math.log(0.5), 0.3 * math.log(0.2)])


def test_the_odds_of_a_certain_completion_are_finite() -> None:
    certain = torch.tensor([0.0, -1e-9, -80.0], requires_grad=True)
    result, _, _ = orpo_loss(certain, torch.tensor([-1.0, -1e-8, 0.0]), beta=1.0)
    result.sum().backward()
    assert result.isfinite().all() and certain.grad is not None and certain.grad.isfinite().all()


def test_good_and_bad_completions_by_hand() -> None:
    result, rewards = kto_loss(
        doubles(-1.0, -1.0), doubles(-3.0, -3.0), torch.tensor([True, False]), doubles(0.5)[0], beta=0.5,
        desirable_weight=2.0,
    )  # fmt: skip
    better = 1 / (1 + math.exp(0.5 * 1.5))
    assert result.tolist() == pytest.approx([2 * better, 1 - better]) and rewards.tolist() == [1.0, 1.0]


def test_implicit_rewards_carry_no_gradient() -> None:
    policy = doubles(-1.0).requires_grad_()
    result, chosen, rejected = dpo_loss(policy, doubles(-4.0), doubles(-3.0), doubles(-3.5), beta=0.5)
    assert (chosen.item(), rejected.item()) == (1.0, -0.25)
    assert result.requires_grad and not chosen.requires_grad and not rejected.requires_grad


@pytest.mark.parametrize(("variant", "start"), [("sigmoid", math.log(2)), ("robust", math.log(2)), ("hinge", 1.0)])
@given(st.lists(FLOATS, min_size=1, max_size=4))
def test_a_policy_that_has_not_moved(variant: str, start: float, log_probs: list[float]) -> None:
    """Learning rate 0: the loss is log 2 whatever the answers."""
    values = doubles(*log_probs)
    result, chosen, rejected = dpo_loss(values, values - 1, values, values - 1, beta=0.1, variant=variant)
    assert result.tolist() == pytest.approx([start] * len(values))
    assert not chosen.any() and not rejected.any()


@given(FLOATS, st.floats(0.0, 0.49))
def test_robust_is_unbiased(difference: float, flipped: float) -> None:
    """The mean over labels flipped with their probability is the loss on true labels."""
    zero = doubles(0.0)
    arguments = {"beta": 1.0, "variant": "robust", "label_smoothing": flipped}
    right, _, _ = dpo_loss(doubles(difference), zero, zero, zero, **arguments)  # type: ignore[arg-type]
    wrong, _, _ = dpo_loss(zero, doubles(difference), zero, zero, **arguments)  # type: ignore[arg-type]
    clean, _, _ = dpo_loss(doubles(difference), zero, zero, zero, beta=1.0)
    mean = (1 - flipped) * right + flipped * wrong
    assert mean.item() == pytest.approx(clean.item(), abs=1e-9)


@pytest.mark.parametrize("variant", ["sigmoid", "ipo", "hinge", "robust"])
def test_gradients(variant: str) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda *x: dpo_loss(*x, beta=0.3, variant=variant)[0], inputs)
    assert torch.autograd.gradcheck(lambda a, b: simpo_loss(a, b, beta=2.0)[0], inputs[:2])
    probable = [-(one.detach().abs() + 0.1).requires_grad_() for one in inputs[:2]]
    assert torch.autograd.gradcheck(lambda a, b: orpo_loss(a, b, beta=0.3)[0], probable)
    margin = torch.rand(5, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda a, b: bradley_terry_loss(a, b, margin=margin, centering=0.1), inputs[:2])


@pytest.mark.parametrize(
    ("variant", "smoothing", "message"),
    [
        ("kto", 0.0, "no variant 'kto'"),
        ("ipo", 0.1, "no meaning"),
        ("hinge", 0.1, "no meaning"),
        ("robust", 0.5, "out of range"),
        ("sigmoid", 1.0, "out of range"),
    ],
)
def test_what_makes_no_sense_is_refused(variant: str, smoothing: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses(variant, smoothing)
