"""A user's own parts of a model: an activation, an attention layer, or a whole core (custom.py).

They are named by their dotted name and live in a package of the user's, or in a file beside the user:

    maquette train model.activation=stranger.model.Snake
    maquette train model.attention=stranger.model.LinearAttention
    maquette train model.kind=stranger.model.build model.settings.depth=4

All are built from what they are given alone, with seeded random numbers of their own, so a run is a function of its
seed; linear layers and embeddings of an activation or attention start as the core's do (initialization.py), everything
else of a user's as its class starts it. Parameters and FLOPs are counted on PyTorch's meta device, where modules take
no memory, under its `FlopCounterMode`, unless `flops` says. What they can't do is said where it is asked for: see
`AttentionLayer.keeps_cache` and `maquette export`.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maquette.artifacts import ConfigError, MaquetteError
from maquette.artifacts.targets import import_target, place_of, users_code

if TYPE_CHECKING:
    from maquette.model.architecture import TransformerConfig


class Activation(Protocol):
    """A function `(B, T, F) -> (B, T, F)`, or an `nn.Module` class made without arguments, between the matrices of the
    feed-forward. With the attribute `gated = True` it acts on a gate that multiplies what goes up, as in SwiGLU."""

    def __call__(self, values: Tensor) -> Tensor: ...


class AttentionLayer(Protocol):
    """An `nn.Module` class, made as `Class(config, layer)` from a `TransformerConfig` and the number of its layer.

    `keeps_cache = True` says that `forward` also takes `cache=` and `layer=` as `transformer.Attention` does. Without
    it each new token of a generated text reads all of the text again: the same text, but slower. A method
    `flops(sequence_length) -> int` gives the forward FLOPs of one sequence where PyTorch can't count them.
    """

    def forward(
        self, hidden: Tensor, *, rotation: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """`hidden (B, T, D)`, normalised -> `(B, T, D)`, which is added to the residual stream.

        `rotation`: cosine and sine of rotary positions, for `transformer.rotate`; None with learned ones. `mask`: which
        columns each token may see, bool `(B, 1, T, T)` (packed documents); None: all that are not ahead of it.
        """
        ...


class CoreModule(Protocol):
    """What a user's function or class gives, called as `build(size=, vocab_size=, sequence_length=, **settings)`: an
    `nn.Module` of about `size` parameters besides its embedding, with a head. `sequence_length` may be left out.

    It has an `nn.Embedding` over the vocabulary, called `embedding` where it has several. `head_weight (V, D)`: where
    it has a head of its own, or shares the embedding's; otherwise it gets one. `lr_multiplier`: its best learning rate
    over a transformer's of its width. `flops(sequence_length) -> int`: as of `AttentionLayer`.
    `new_cache(batch, length, starts=None)`: a cache with `used`, `starts` and `keep(rows)`, which `forward` then gets.
    """

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Any | None = None,
    ) -> Tensor:
        """`tokens (B, T)` int64 -> hidden states `(B, T, D)`, of which each may depend on earlier tokens alone.

        Arguments it does not name are not given. `segments (B, T)`: the document of each token, which sees only its
        own; without it packed documents are refused.
        """
        ...


@dataclass(frozen=True)
class CountedFlops:
    """Of one forward pass: products with matrices of weights, and products of activations with one another."""

    weights: int
    activations: int


def count_flops(run: Callable[[], Any], called: str) -> CountedFlops:
    """The FLOPs of `run`, which calls modules on the meta device.

    Products of two activations are told by their operator: batched ones, and fused attention. Raises `ConfigError`
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


@functools.lru_cache(maxsize=4096)
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


@functools.lru_cache(maxsize=4096)
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


@functools.lru_cache(maxsize=4096)
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
