"""Which parameter is treated how: hidden matrices, other matrices, and the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

_HIDDEN = {"layers", "lstm"}


@dataclass
class ParameterGroups:
    """Every trainable parameter of a model, once.

    `hidden`: matrices inside the layers (Muon's, where it is used); `matrices`: the other ones, that is the head;
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
            kind = "hidden" if _HIDDEN.intersection(name.split(".")) else "matrices"
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


def adamw_groups(module: nn.Module, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups for a part of a model that has a rate of its own: matrices decayed, the rest not."""
    found = parameter_groups(module)
    groups = (
        {"params": found.hidden + found.matrices, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": found.embeddings + found.vectors, "lr": learning_rate, "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]
