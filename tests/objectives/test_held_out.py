"""What validation adds up to, against numbers worked out by hand."""

import math

import pytest

from maquette.objectives.held_out import DomainLoss, metric_name, overall


def test_one_domain() -> None:
    loss = DomainLoss(nats=200.0, tokens=100, bytes=300)
    assert loss.loss == 2.0
    assert loss.perplexity == pytest.approx(math.e**2)
    assert loss.bits_per_byte == pytest.approx(200 / (300 * math.log(2)))


def test_domains_are_weighed_as_in_the_mixture() -> None:
    losses = {"code": DomainLoss(100.0, 100, 200), "docs": DomainLoss(300.0, 100, 400), "new": DomainLoss(9.0, 1, 1)}
    result = overall(losses, {"code": 0.25, "docs": 0.75, "unseen": 0.5})
    assert result["validation/loss"] == pytest.approx(0.25 * 1 + 0.75 * 3)
    assert result["validation/perplexity"] == pytest.approx(math.exp(2.5))
    assert result["validation/bits_per_byte"] == pytest.approx(2.5 / (math.log(2) * (0.25 * 2 + 0.75 * 4)))


def test_domains_outside_the_mixture_count_alike() -> None:
    losses = {"a": DomainLoss(1.0, 1, 1), "b": DomainLoss(3.0, 1, 1)}
    assert overall(losses, {"c": 1.0})["validation/loss"] == 2.0
    assert overall({}, {"c": 1.0}) == {}


def test_names_that_a_tracker_takes() -> None:
    assert metric_name("c++ & co", "loss") == "validation/c__ _ co/loss"
