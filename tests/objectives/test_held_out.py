"""What validation adds up to, against numbers worked out by hand."""

import math

import pytest
import torch

from maquette.data.copying import TOKEN_KINDS
from maquette.objectives.held_out import DomainLoss, domain_sums, metric_name, overall


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


def test_the_kinds_of_token_give_the_loss_again() -> None:
    numbers = torch.Generator().manual_seed(0)
    nats = {name: torch.rand(2, 30, generator=numbers) for name in ("code", "docs")}
    kinds = {name: torch.randint(0, 3, (2, 30), generator=numbers) for name in nats}
    losses = {name: DomainLoss.of(domain_sums(nats[name], 100, kinds[name])) for name in nats}
    for name, place in (("code", 0), ("docs", 2)):
        chosen = nats[name][kinds[name] == place].double()
        assert losses[name].kinds[place] == pytest.approx((float(chosen.sum()), len(chosen)))
    values = overall(losses, {"code": 3.0, "docs": 1.0})
    shares = [values[f"token_kinds/{kind}_share"] for kind in TOKEN_KINDS]
    parts = [values[f"token_kinds/{kind}_loss"] for kind in TOKEN_KINDS]
    assert sum(shares) == pytest.approx(1)
    assert sum(a * b for a, b in zip(shares, parts, strict=True)) == pytest.approx(values["validation/loss"])
    plain = {name: DomainLoss.of(domain_sums(nats[name], 100)) for name in nats}
    assert overall(plain, {"code": 3.0, "docs": 1.0}) == {
        name: value for name, value in values.items() if name.startswith("validation/")
    }


def test_a_kind_that_never_comes_has_no_loss() -> None:
    sums = domain_sums(torch.ones(1, 4), 4, torch.tensor([[0, 0, 0, 2]]))
    values = overall({"a": DomainLoss.of(sums)}, {})
    assert values["token_kinds/hit_share"] == 0 and "token_kinds/hit_loss" not in values
