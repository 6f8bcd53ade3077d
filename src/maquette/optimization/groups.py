"""Which parameter is treated how: hidden matrices, other matrices, and the rest."""

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


def parameter_groups(model: nn.Module) -> ParameterGroups:
    """Sorts `model`'s trainable parameters. A matrix is hidden where it lies in `layers` (of a transformer)
    or `lstm`; a head that shares the embedding's matrix counts as an embedding."""
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    groups = ParameterGroups()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in embeddings:
            groups.embeddings.append(parameter)
        elif parameter.ndim < 2:
            groups.vectors.append(parameter)
        elif _HIDDEN.intersection(name.split(".")):
            groups.hidden.append(parameter)
        else:
            groups.matrices.append(parameter)
    return groups


def adamw_groups(module: nn.Module, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups for a part of a model that has a rate of its own: matrices decayed, the rest not."""
    found = parameter_groups(module)
    groups = (
        {"params": found.hidden + found.matrices, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": found.embeddings + found.vectors, "lr": learning_rate, "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]
