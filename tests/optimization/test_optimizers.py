"""Optimisers: which parameter gets what, steps against hand computation, and state that survives saving."""

import copy
from typing import Any

import pytest
import torch

from maquette.model import LanguageModel, MixtureOfExpertsConfig
from maquette.model.experts import mixtures_of
from maquette.optimization import OptimizerPair, build_optimizer, parameter_groups
from maquette.optimization.config import OPTIMIZERS
from support.toy import Toy, step


def build(kind: str = "adamw", **settings: object) -> tuple[Toy, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Toy()
    node = OPTIMIZERS[kind](**settings)  # type: ignore[arg-type]
    return model, build_optimizer(model, node, learning_rate=0.01, weight_decay=0.1)


def test_every_parameter_is_in_one_group() -> None:
    model = Toy()
    groups = parameter_groups(model)
    assert [tuple(p.shape) for p in groups.hidden] == [(4, 4), (4, 4)]
    assert groups.matrices == [model.head.weight]
    assert groups.embeddings == [model.embedding.weight]
    assert len(groups.vectors) == 4
    tied = parameter_groups(Toy(tied=True))
    assert not tied.matrices and len(tied.embeddings) == 1


def test_frozen_parameters_are_left_out() -> None:
    model = Toy()
    model.layers[0].weight.requires_grad_(False)
    assert len(parameter_groups(model).hidden) == 1


def test_only_matrices_are_decayed() -> None:
    model, optimizer = build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        decayed = name == "head.weight" or (name.startswith("layers") and name.endswith("weight"))
        expected = before[name] * (1 - 0.01 * 0.1) if decayed else before[name]
        torch.testing.assert_close(parameter.detach(), expected)


def test_first_step_of_adamw_is_the_sign_of_the_gradient() -> None:
    model, optimizer = build(eps=0.0)
    before = model.norm.weight.detach().clone()
    step(model, optimizer)
    torch.testing.assert_close(model.norm.weight.detach(), before - 0.01 * model.norm.weight.grad.sign())


def test_muon_moves_hidden_matrices_by_a_nearly_orthogonal_one() -> None:
    model, optimizer = build("muon", muon_lr=0.5)
    assert isinstance(optimizer, OptimizerPair)
    weight = model.layers[0].weight
    before = weight.detach().clone()
    step(model, optimizer)
    move = (before * (1 - 0.5 * 0.1) - weight.detach()) / 0.5
    assert torch.linalg.matrix_norm(move, ord=2) < 1.3  # singular values of the five-step iteration lie in [0.5, 1.3]
    assert torch.linalg.matrix_norm(move) > 1.0


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_learns_and_resumes_exactly(kind: str) -> None:
    model, optimizer = build(kind)
    losses = [step(model, optimizer) for _ in range(30)]
    assert losses[-1] < losses[0] - 0.3
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    expected = [step(model, optimizer) for _ in range(3)]
    other, fresh = build(kind)
    step(other, fresh, seed=5)
    other.load_state_dict(saved[0])
    fresh.load_state_dict(saved[1])
    assert [step(other, fresh) for _ in range(3)] == expected


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_schedule_reaches_every_group(kind: str) -> None:
    model, optimizer = build(kind)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step == 0 else 0.5)
    before = copy.deepcopy(model.state_dict())
    step(model, optimizer)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])
    scheduler.step()
    assert all(group["lr"] == 0.5 * group["initial_lr"] > 0 for group in optimizer.param_groups)
    optimizer.load_state_dict(optimizer.state_dict())
    step(model, optimizer)
    assert all((value != before[name]).any() for name, value in model.state_dict().items())


def test_closure_is_called_once_with_gradients() -> None:
    model, optimizer = build("muon")
    calls = []

    def closure() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        loss = model(torch.tensor([[1, 2]])).square().mean()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) > 0
    assert calls == [True]


def test_muon_moves_each_expert_s_matrix_by_itself() -> None:
    """A stack moves as its matrices would one by one; routers are AdamW's, as heads are."""
    config = MixtureOfExpertsConfig(20, 8, 2, 2, intermediate_size=6, num_experts=3)
    model = LanguageModel(config)
    optimizer: Any = build_optimizer(model, OPTIMIZERS["muon"](), learning_rate=0.01, weight_decay=0.1)
    stack = mixtures_of(model)[0].gate.weight
    apart = [torch.nn.Parameter(matrix.clone()) for matrix in stack.detach()]
    reference = torch.optim.Muon(apart, lr=0.02, momentum=0.95, weight_decay=0.1)
    for step_number in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(step_number + parameter.numel())
            )
        for one, gradient in zip(apart, stack.grad, strict=True):
            one.grad = gradient.clone()
        optimizer.step()
        reference.step()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(stack.detach(), apart, strict=True))
    routers = {id(layer.router.weight) for layer in mixtures_of(model)}
    assert routers <= {id(p) for group in optimizer.pair[-1].param_groups for p in group["params"]}
    assert [len(group["params"]) for group in optimizer.param_groups if group.get("stacked")] == [6]
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups[:3])
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
