"""Parameters and FLOPs of a user's modules, which have no formula: built on PyTorch's meta device, where they take no
memory, and run once under its `FlopCounterMode`, unless they have a method `flops`.

Configurations are those of architecture.py, which asks here; so this imports nothing of them.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maquette.artifacts import ConfigError, MaquetteError
from maquette.artifacts.targets import place_of
from maquette.model.custom_parts import embedding_of, head_of, make_activation, make_attention, make_core
from maquette.model.rotary import rotary_table


@dataclass(frozen=True)
class CountedFlops:
    """Of one forward pass: products with matrices of weights, and products of activations with one another."""

    weights: int
    activations: int


def count_flops(run: Callable[[], Any], called: str) -> CountedFlops:
    """The FLOPs of `run`, which calls modules on the meta device.

    Products of two activations are known by their operator: batched ones, and fused attention. Raises `ConfigError`
    where nothing was counted, as of an operator of one's own.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    by_operator = counter.get_flop_counts().get("Global", {})
    weights = sum(flops for operator, flops in by_operator.items() if str(operator) in _OF_WEIGHTS)
    total = sum(by_operator.values())
    if not total:
        raise ConfigError(
            f"{called} does no operation that PyTorch counts, so its FLOPs are not known.",
            "Give it a method `flops(self, sequence_length) -> int`: those of one forward pass over one sequence.",
        )
    return CountedFlops(int(weights), int(total - weights))


_OF_WEIGHTS = frozenset(("aten.mm", "aten.addmm", "aten.convolution", "aten._convolution"))


@contextmanager
def on_meta(called: str) -> Iterator[None]:
    """Around building and running a user's module without memory; an error in it names it, its file and line."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            yield
    except MaquetteError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{called} failed{place_of(error)}: {type(error).__name__}: {error}",
            "It was made on PyTorch's meta device, where tensors have shapes and no values, to count it.",
        ) from error


def parameters_in(module: nn.Module) -> int:
    """Parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def meta_tokens(length: int) -> Tensor:
    """One sequence of `length` tokens without values."""
    return torch.zeros(1, length, dtype=torch.int64, device="meta")


@functools.lru_cache(maxsize=4096)
def attention_parameters(config: Any) -> int:
    """Of one layer. Raises `ConfigError` where it can't be built, or what it gives has not the shape it got."""
    with on_meta(str(config.attention)):
        module = make_attention(config, 0)
        hidden = torch.zeros(1, 8, config.hidden_size)
        given = module(hidden, rotation=_rotation(config, 8))
    _check_shape(str(config.attention), given, hidden)
    return parameters_in(module)


@functools.lru_cache(maxsize=4096)
def activation_parameters(config: Any) -> int:
    """Of one layer. Raises `ConfigError` where it can't be built, or changes the shape of what it gets."""
    with on_meta(config.activation):
        module = make_activation(config.activation)
        values = torch.zeros(1, 8, config.inner_width)
        given = module(values)
    _check_shape(config.activation, given, values)
    return parameters_in(module)


def _check_shape(called: str, given: Any, values: Tensor) -> None:
    if _shape(given) != tuple(values.shape):
        raise ConfigError(f"{called} gives {_shape(given)} for values of shape {tuple(values.shape)}.")


def _shape(given: Any) -> Any:
    return tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__


@functools.lru_cache(maxsize=4096)
def attention_flops(config: Any, length: int) -> CountedFlops:
    """Of one layer's forward pass over one sequence: its own `flops`, or counted."""
    with on_meta(str(config.attention)):
        module = make_attention(config, 0)
        hidden, rotation = torch.zeros(1, length, config.hidden_size), _rotation(config, length)
        return _flops_of(module, str(config.attention), length, lambda: module(hidden, rotation=rotation))


def _flops_of(module: nn.Module, called: str, length: int, run: Callable[[], Any]) -> CountedFlops:
    if callable(own := getattr(module, "flops", None)):
        return CountedFlops(int(own(length)), 0)
    return count_flops(run, called)


def _rotation(config: Any, length: int) -> tuple[Tensor, Tensor] | None:
    if config.positions != "rotary":
        return None
    return rotary_table(torch.arange(length), config.width_of_head, config.rope_theta, torch.float32)


@dataclass(frozen=True)
class Description:
    """What is known of a user's core without giving it memory. `parameters`: of embedding, core and head."""

    hidden_size: int
    num_hidden_layers: int
    parameters: tuple[int, int, int]
    lr_multiplier: float


@functools.lru_cache(maxsize=4096)
def describe(config: Any) -> Description:
    """Builds the core on the meta device and lets it read a few tokens.

    Raises `ConfigError` where it can't be built, its output is not `(B, T, D)`, or it has no embedding to count.
    """
    with on_meta(config.target):
        module = make_core(config)
        length = min(8, config.max_position_embeddings)
        hidden = module(meta_tokens(length))
    if not isinstance(hidden, Tensor) or hidden.shape[:2] != (1, length) or hidden.ndim != 3:
        raise ConfigError(
            f"{config.target} gives {_shape(hidden)} for tokens of shape (1, {length}).",
            "Its forward gives hidden states (B, T, D); the head is put on top of them.",
        )
    width, head, embedding = hidden.size(-1), head_of(module, config), embedding_of(module, config)
    if head is not None and head.shape != (config.vocab_size, width):
        raise ConfigError(
            f"{config.target} has a head_weight of shape {tuple(head.shape)}, not ({config.vocab_size}, {width})."
        )
    rows = 0 if embedding is None or embedding.weight is head else embedding.weight.numel()
    own_head = 0 if head is None else head.numel()
    return Description(
        hidden_size=width,
        num_hidden_layers=max(
            (len(child) for child in module.modules() if isinstance(child, nn.ModuleList | nn.Sequential)), default=1
        ),
        parameters=(rows, parameters_in(module) - rows - own_head, config.vocab_size * width),
        lr_multiplier=float(getattr(module, "lr_multiplier", 1.0)),
    )


@functools.lru_cache(maxsize=4096)
def flops_of_sequence(config: Any, length: int) -> CountedFlops:
    """Of one forward pass of the core over one sequence: its own `flops`, or counted."""
    with on_meta(config.target):
        module = make_core(config)
        tokens = meta_tokens(length)
        return _flops_of(module, config.target, length, lambda: module(tokens))
