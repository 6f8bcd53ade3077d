"""Optimisers from a node of the config and groups of parameters; Muon, which PyTorch has for matrices only.

The groups (which parameter is decayed, at what share of the rate) are ours for every optimiser, see `groups.py`.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Adam, AdamW, Optimizer

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import Node, arguments_of, build, import_target, node_value, target_of
from maquette.model.parametrization import STANDARD, Parametrization
from maquette.optimization.config import NOT_ARGUMENTS
from maquette.optimization.groups import Kinds, optimizer_groups

_DEVICES_WITH_FUSED_ADAMW = ("cpu", "cuda")


class OptimizerPair(Optimizer):
    """Optimisers (as a rule two) that step as one, each on parameters of its own.

    Lightning's automatic optimisation takes a single optimiser. `param_groups` are those of both, so a
    learning-rate schedule reaches each of them; the state stays where it is, in the parts.
    """

    def __init__(self, *parts: Optimizer) -> None:
        self.pair = parts
        super().__init__(itertools.chain.from_iterable(group["params"] for group in self._groups()), {})
        self._share()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.pair for group in optimizer.param_groups]

    def _share(self) -> None:
        """The same group dictionaries, so that a learning rate set here is the one that is used there."""
        self.param_groups = self._groups()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each; `closure` computes the gradients and is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.pair:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self.pair:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"pair": [optimizer.state_dict() for optimizer in self.pair]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.pair, state_dict["pair"], strict=True):
            optimizer.load_state_dict(state)
        self._share()


class Muon(OptimizerPair):
    """Muon for hidden matrices, AdamW for the rest, as one optimiser.

    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks": the head and the embedding, whose
    rows are tokens, are better left to AdamW. `params`: groups, of which those marked `hidden` are Muon's, at
    `muon_lr`. The other arguments are AdamW's. With no hidden matrices it is AdamW alone.
    """

    separate_hidden_matrices = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        muon_lr: float = 0.02,
        muon_momentum: float = 0.95,
        fused: bool | None = None,
    ) -> None:
        groups = [dict(one) if isinstance(one, dict) else {"params": [one]} for one in params]
        hidden = [group | {"lr": muon_lr} for group in groups if group.get("hidden")]
        others = [group for group in groups if not group.get("hidden")]
        parts: list[Optimizer] = []
        for kind in (torch.optim.Muon, _StackedMuon):
            alike = [group for group in hidden if bool(group.get("stacked")) == (kind is _StackedMuon)]
            if alike:
                parts.append(kind(alike, lr=muon_lr, momentum=muon_momentum, weight_decay=weight_decay))
        if others:
            parts.append(AdamW(others, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused))
        super().__init__(*parts)


class _StackedMuon(torch.optim.Muon):
    """PyTorch's Muon for stacks of matrices `(E, outputs, inputs)`: each is orthogonalised by itself. Of a stack that
    is shared out by its first dimension a process moves its own matrices, and needs no others'."""

    def __init__(self, params: Iterable[dict[str, Any]], **settings: Any) -> None:
        groups = list(params)
        super().__init__([{**group, "params": [torch.zeros(1, 1)]} for group in groups], **settings)
        for group, own in zip(self.param_groups, groups, strict=True):  # it insists on two dimensions here alone
            group["params"] = own["params"]

    def _init_group(self, group: Any, *lists: Any) -> bool:
        stacks: tuple[list[torch.Tensor], ...] = ([], [], [])
        is_complex = super()._init_group(group, *stacks)
        for matrices, stack in zip(lists, stacks, strict=True):
            matrices += [matrix for one in stack for matrix in _matrices(one)]
        return is_complex


@torch.no_grad()
def _matrices(stack: torch.Tensor) -> Sequence[torch.Tensor]:
    if isinstance(stack, DTensor):
        if any(place.is_shard() and not place.is_shard(0) for place in stack.placements):
            raise ConfigError("Muon needs each expert's matrix whole.", "Shard experts by their first dimension.")
        stack = stack.to_local()
    return stack.unbind()


def wants_hidden_matrices(node: Node) -> bool:
    """Whether the optimiser that a node names treats hidden matrices in a way of their own: its class says
    `separate_hidden_matrices = True`, and then gets them in groups marked `hidden`."""
    return bool(getattr(_target(node), "separate_hidden_matrices", False))


def build_optimizer(
    model: nn.Module,
    node: Node,
    *,
    learning_rate: float,
    weight_decay: float,
    fused: bool | None = None,
    parametrization: Parametrization = STANDARD,
    kinds: Kinds | None = None,
    more: Sequence[dict[str, Any]] = (),
) -> Optimizer:
    """The optimiser that a node names over `model`'s trainable parameters (see `optimizer_groups`) and `more` groups,
    at its peak learning rate. Raises `ConfigError` where it can't be built.

    It gets the rate and the decay as arguments as well, where it has them. `fused` runs Adam's whole step as one
    kernel: five times faster than the other two ways on a processor. By default it is used where it exists; it can't go
    with a gradient scaler (`precision=16-mixed`), which wants to look at the gradients in between.
    """
    groups = optimizer_groups(
        model,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        parametrization=parametrization,
        kinds=kinds,
        hidden_apart=wants_hidden_matrices(node),
    )
    groups += more
    target = _target(node)
    if fused is None:
        fused = all(p.device.type in _DEVICES_WITH_FUSED_ADAMW for group in groups for p in group["params"])
    known: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if isinstance(target, type) and issubclass(target, Adam | Muon) and node_value(node, "fused") is None:
        known["fused"] = fused
    arguments = arguments_of(target)
    optimizer = build(
        node,
        groups,
        key="optimizer",
        leave_out=(*NOT_ARGUMENTS, *known),
        **{name: value for name, value in known.items() if name in arguments},
    )
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(
            f"optimizer: {target_of(node)} makes {type(optimizer).__name__}, which is not an optimiser of PyTorch's.",
            "Derive it from torch.optim.Optimizer.",
        )
    return optimizer


def _target(node: Node) -> Callable[..., Any]:
    target: Callable[..., Any] = import_target(target_of(node), key="optimizer._target_")
    return target
