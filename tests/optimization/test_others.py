"""Anyone's optimiser and scheduler: they get our groups of parameters, and are stepped once per optimiser step."""

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import Node
from maquette.optimization import Optimization, Schedule, build_optimizer
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig, LinearSchedulerConfig, MuonConfig
from support.toy import Toy, step

RMSPROP = {"_target_": "torch.optim.RMSprop", "_partial_": True, "alpha": 0.9}
TORCHS = "torch.optim.lr_scheduler."


class SignDescent(torch.optim.Optimizer):
    """A user's: no decay, and hidden matrices at half the rate."""

    separate_hidden_matrices = True

    def __init__(self, params: Any, lr: float = 1.0) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter -= group["lr"] * (0.5 if group.get("hidden") else 1.0) * parameter.grad.sign()


class Fading(torch.optim.AdamW):
    """A user's that hands its settings on."""

    def __init__(self, params: Any, fading: float = 0.1, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.fading = fading


class InverseRoot(Schedule):
    """A user's schedule of tokens."""

    def __init__(self, total: int, *, warmup: float, power: float = 0.5) -> None:
        super().__init__(total, max(1, round(warmup * total)), 0)
        object.__setattr__(self, "power", power)

    def factor(self, tokens: float) -> float:
        return min(tokens / self.warmup, (self.warmup / max(tokens, 1)) ** self.power)  # type: ignore[attr-defined]


def optimization(optimizer: Node = RMSPROP, scheduler: Node = None, **changes: Any) -> Optimization:
    settings: dict[str, Any] = {
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "steps": 10,
        "batch_size_tokens": 5,
    } | changes
    return Optimization(optimizer, scheduler or ConstantSchedulerConfig(), **settings)


def rates(plan: Optimization) -> list[float]:
    """The rate of the vectors in each step."""
    model = Toy()
    configured: Any = plan.configure(model)
    factors = []
    for _ in range(plan.steps):
        factors.append(configured["optimizer"].param_groups[-1]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    return factors


def test_groups_are_ours() -> None:
    model = Toy()
    optimizer = build_optimizer(model, RMSPROP, learning_rate=0.01, weight_decay=0.1)
    assert type(optimizer) is torch.optim.RMSprop
    decayed, undecayed = optimizer.param_groups
    assert decayed["params"] == [model.layers[0].weight, model.layers[1].weight, model.head.weight]
    assert [(one["lr"], one["weight_decay"], one["alpha"]) for one in (decayed, undecayed)] == [
        (0.01, 0.1, 0.9),
        (0.01, 0.0, 0.9),
    ]
    losses = [step(model, optimizer) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.3


def test_an_optimiser_may_ask_for_hidden_matrices_apart() -> None:
    model = Toy()
    optimizer = build_optimizer(model, {"_target_": f"{__name__}.SignDescent"}, learning_rate=0.01, weight_decay=0.1)
    hidden = [group for group in optimizer.param_groups if group.get("hidden")]
    assert [group["params"] for group in hidden] == [[layer.weight for layer in model.layers]]
    assert optimizer.defaults == {"lr": 0.01}
    before = model.layers[0].weight.detach().clone()
    step(model, optimizer)
    torch.testing.assert_close((before - model.layers[0].weight).abs(), torch.full_like(before, 0.005))


def test_settings_that_are_handed_on_arrive() -> None:
    node = {"_target_": f"{__name__}:Fading", "fading": 0.3, "betas": [0.8, 0.9]}
    optimizer = build_optimizer(Toy(), node, learning_rate=0.01, weight_decay=0.1)
    assert isinstance(optimizer, Fading) and optimizer.fading == 0.3
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    assert all(list(group["betas"]) == [0.8, 0.9] and group["fused"] for group in optimizer.param_groups)


def test_muon_without_hidden_matrices_is_adamw() -> None:
    head = torch.nn.Linear(3, 2)
    optimizer = build_optimizer(head, MuonConfig(), learning_rate=0.01, weight_decay=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]
    head(torch.ones(1, 3)).sum().backward()
    before = head.bias.detach().clone()
    optimizer.step()
    torch.testing.assert_close(head.bias.detach(), before - 0.01)


@pytest.mark.parametrize(
    ("node", "named"),
    [
        ({"_target_": "torch.optim.LBFGS"}, "LBFGS"),  # knows no groups
        ({"_target_": "torch.optim.RMSProp"}, "RMSprop"),
        ({"_target_": "torch.nn.Linear", "out_features": 2}, "Linear"),
    ],
)
def test_what_is_no_optimiser_for_groups_is_named(node: Node, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_optimizer(Toy(), node, learning_rate=0.01, weight_decay=0.0)
    assert named in "".join(map(str, caught.value.args)) + str(vars(caught.value))


@pytest.mark.parametrize("settings", [{}, {"T_max": None}, {"T_max": 10}])
def test_a_stock_scheduler_runs_over_all_steps(settings: dict[str, Any]) -> None:
    plan = optimization(scheduler={"_target_": TORCHS + "CosineAnnealingLR", "eta_min": 0.001, **settings})
    assert isinstance(plan.configure(Toy())["lr_scheduler"]["scheduler"], CosineAnnealingLR)  # type: ignore[index]
    expected = [0.001 + 0.009 * (1 + torch.cos(torch.tensor(torch.pi * step / 10)).item()) / 2 for step in range(10)]
    assert rates(plan) == pytest.approx(expected, rel=1e-5)


def test_a_stock_scheduler_keeps_what_is_given() -> None:
    assert rates(optimization(scheduler={"_target_": TORCHS + "CosineAnnealingLR", "T_max": 5}))[5] == pytest.approx(
        0.0
    )


def test_every_group_has_its_own_peak() -> None:
    more = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 0.03}]
    plan = optimization(AdamWConfig(), {"_target_": TORCHS + "OneCycleLR", "pct_start": 0.4})
    configured: Any = plan.configure(torch.nn.Linear(2, 2, bias=False), more=more)
    scheduler: LRScheduler = configured["lr_scheduler"]["scheduler"]
    assert isinstance(scheduler, OneCycleLR) and scheduler.total_steps == 10
    peaks = [0.0, 0.0]
    for _ in range(9):
        configured["optimizer"].step()
        scheduler.step()
        peaks = [max(*pair) for pair in zip(peaks, scheduler.get_last_lr(), strict=True)]
    assert peaks == pytest.approx([0.01, 0.03])


def test_a_function_that_warms_up_gets_the_recipes_share() -> None:
    pytest.importorskip("transformers")
    node = {"_target_": "transformers.get_linear_schedule_with_warmup", "num_warmup_steps": None}
    assert rates(optimization(scheduler=node, warmup=0.4))[:5] == pytest.approx([0.0, 0.0025, 0.005, 0.0075, 0.01])


def test_a_schedule_of_tokens_of_ones_own() -> None:
    plan = optimization(scheduler={"_target_": f"{__name__}.InverseRoot", "warmup": None, "power": 1.0}, warmup=0.2)
    assert rates(plan)[:4] == pytest.approx([0.0025, 0.0075, 0.01 / 1.25, 0.01 / 1.75])


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "SequentialLR"])
def test_a_scheduler_that_does_not_fit_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        optimization(scheduler={"_target_": TORCHS + name}).configure(Toy())


@pytest.mark.parametrize("optimizer", [RMSPROP, AdamWConfig(betas=[0.8, 0.9]), MuonConfig()])
@pytest.mark.parametrize("scheduler", [LinearSchedulerConfig(), {"_target_": TORCHS + "CosineAnnealingLR"}])
def test_a_description_makes_the_same_again(optimizer: Node, scheduler: Node) -> None:
    plan = optimization(optimizer, scheduler, warmup=0.2)
    described = plan.describe()
    assert all(isinstance(described[key], dict) for key in ("optimizer", "scheduler", "parametrization"))
    again = Optimization.of(described)
    assert rates(again) == rates(plan)
    groups = [
        [
            {key: value for key, value in group.items() if key != "params"}
            for group in one.configure(Toy())["optimizer"].param_groups
        ]  # type: ignore[index]
        for one in (plan, again)
    ]
    assert groups[0] == groups[1]
