"""Which parameter is treated how: hidden matrices, other matrices, and the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from maquette.model.experts import StackedLinear
from maquette.model.parametrization import STANDARD, Parametrization

_HIDDEN = {"layers", "lstm"}


@dataclass
class ParameterGroups:
    """Every trainable parameter of a model, once.

    `hidden`: matrices inside the layers (Muon's, where it is used), of experts a stack of them `(E, outputs, inputs)`;
    `matrices`: the other ones, that is the head, and the routers of experts, which are heads over those;
    `embeddings`: tables of vectors that are looked up; `vectors`: gains, biases, shares. Weight decay is for
    matrices that multiply, hidden or not: an embedding's row only feels the tokens it stands for, and shrinking a
    gain or a bias regularises nothing.
    """

    hidden: list[nn.Parameter] = field(default_factory=list)
    matrices: list[nn.Parameter] = field(default_factory=list)
    embeddings: list[nn.Parameter] = field(default_factory=list)
    vectors: list[nn.Parameter] = field(default_factory=list)


Kinds = Mapping[str, str]
"""The group of each parameter, by its name in the model."""

_WRAPPERS = {"_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"}


def parameter_kinds(model: nn.Module) -> Kinds:
    """In which of `ParameterGroups` each parameter belongs, by name. A matrix is hidden where it lies in `layers` (of a
    transformer) or `lstm`; a head that shares the embedding's matrix counts as an embedding."""
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    kinds = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in embeddings:
            kind = "embeddings"
        elif parameter.ndim < 2:
            kind = "vectors"
        else:
            parts = name.split(".")
            kind = "hidden" if _HIDDEN.intersection(parts) and "router" not in parts else "matrices"
        kinds[_plain(name)] = kind
    return kinds


def parameter_groups(model: nn.Module, kinds: Kinds | None = None) -> ParameterGroups:
    """Sorts `model`'s trainable parameters. Sharded ones are flat and show no more what they were: there `kinds` are
    those of `parameter_kinds` from before."""
    kinds = parameter_kinds(model) if kinds is None else kinds
    groups = ParameterGroups()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            getattr(groups, kinds[_plain(name)]).append(parameter)
    return groups


def _plain(name: str) -> str:
    """A parameter's name without what FSDP and compilation put between."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def optimizer_groups(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    parametrization: Parametrization = STANDARD,
    kinds: Kinds | None = None,
    hidden_apart: bool = False,
) -> list[dict[str, Any]]:
    """`params` for any optimiser, as PyTorch takes them: each group with its `lr` and `weight_decay`, matrices first.

    `parametrization` gives parameters their share of the rate; the decay of a step (rate x weight_decay) is the same
    for all, so that it does not fade as a width-scaled rate falls (Wang and Aitchison 2024). `hidden_apart`: hidden
    matrices in a group of their own, marked `hidden` and at the whole rate; stacks of them, a matrix for each expert,
    in one that is also marked `stacked`. `kinds`: see `parameter_groups`.
    """
    split = parameter_groups(model, kinds)
    shares = {id(p): parametrization.rate_factor(name, model) for name, p in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    if hidden_apart:
        stacks = {id(p) for one in model.modules() if isinstance(one, StackedLinear) for p in one.parameters()}
        whole: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay, "hidden": True}
        for mark in ({}, {"stacked": True}):
            alike = [parameter for parameter in split.hidden if (id(parameter) in stacks) == bool(mark)]
            if alike:
                groups.append({"params": alike} | whole | mark)
    decayed = split.matrices if hidden_apart else [*split.hidden, *split.matrices]
    for parameters, decay in ((decayed, weight_decay), ([*split.embeddings, *split.vectors], 0.0)):
        for share in dict.fromkeys(shares[id(parameter)] for parameter in parameters):
            alike = [parameter for parameter in parameters if shares[id(parameter)] == share]
            groups.append({"params": alike, "lr": share * learning_rate, "weight_decay": decay / share})
    return groups
