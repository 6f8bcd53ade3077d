"""Activations and attention layers that a user wrote, in the core's blocks; see `protocols.py`."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import import_target, users_code
from maquette.model.counting import CountedFlops, cached, count_flops, on_meta, parameters_in

if TYPE_CHECKING:
    from maquette.model.config import TransformerConfig


def is_gated(activation: str) -> bool:
    """Whether a user's activation acts on a gate."""
    return bool(getattr(import_target(activation, key="model.activation"), "gated", False))


def make_activation(name: str) -> nn.Module:
    """A user's activation as a module."""
    found = import_target(name, key="model.activation")
    with users_code(name):
        made = found() if isinstance(found, type) else found
    if not callable(made):
        raise ConfigError(f"model.activation={name} can't be called.", "Name a function or an nn.Module class.")
    return made if isinstance(made, nn.Module) else _Function(made)


class _Function(nn.Module):
    """A plain function as a module without parameters."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


def make_attention(config: "TransformerConfig", layer: int) -> nn.Module:
    """A user's attention layer."""
    name = str(config.attention)
    found = import_target(name, key="model.attention")
    with users_code(name):
        made = found(config, layer)
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"model.attention={name} gives {type(made).__name__}, not a torch.nn.Module.",
            "Name a class that is made as Class(config, layer).",
        )
    return made


def attention_keeps_cache(config: "TransformerConfig") -> bool:
    """Whether generation may give the attention layers a cache."""
    return config.attention is None or bool(
        getattr(import_target(config.attention, key="model.attention"), "keeps_cache", False)
    )


@cached
def attention_parameters(config: "TransformerConfig") -> int:
    """Of one layer. Raises `ConfigError` where it can't be built, or what it gives has not the shape it got."""
    with on_meta(str(config.attention)):
        module = make_attention(config, 0)
        hidden = torch.zeros(1, 8, config.hidden_size)
        given = module(hidden, rotation=_rotation(config, 8))
    if not isinstance(given, Tensor) or given.shape != hidden.shape:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ConfigError(f"{config.attention} gives {shape} for hidden states of shape {tuple(hidden.shape)}.")
    return parameters_in(module)


@cached
def activation_parameters(config: "TransformerConfig") -> int:
    """Of one layer. Raises `ConfigError` where it can't be built, or changes the shape of what it gets."""
    with on_meta(config.activation):
        module = make_activation(config.activation)
        values = torch.zeros(1, 8, config.inner_width)
        given = module(values)
    if not isinstance(given, Tensor) or given.shape != values.shape:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise ConfigError(f"{config.activation} gives {shape} for values of shape {tuple(values.shape)}.")
    return parameters_in(module)


@cached
def attention_flops(config: "TransformerConfig", length: int) -> CountedFlops:
    """Of one layer's forward pass over one sequence: its own `flops`, or counted."""
    with on_meta(str(config.attention)):
        module = make_attention(config, 0)
        if callable(own := getattr(module, "flops", None)):
            return CountedFlops(int(own(length)), 0)
        hidden, rotation = torch.zeros(1, length, config.hidden_size), _rotation(config, length)
        return count_flops(lambda: module(hidden, rotation=rotation), str(config.attention))


def _rotation(config: "TransformerConfig", length: int) -> tuple[Tensor, Tensor] | None:
    from maquette.model.transformer import rotary_table

    if config.positions != "rotary":
        return None
    return rotary_table(torch.arange(length), config.width_of_head, config.rope_theta, torch.float32)
