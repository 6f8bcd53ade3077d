"""A core that a user wrote, behind the interface of ours; see `custom_parts.CoreModule`."""

import functools
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import import_target, users_code
from maquette.model.architecture import CustomConfig, ParameterCount
from maquette.model.cache import RereadingCache
from maquette.model.custom_parts import CountedFlops, count_flops, meta_tokens, on_meta, parameters_in

_EMBEDDINGS = ("embedding", "embed_tokens", "wte", "tok_embeddings", "token_embedding")


class CustomCore(nn.Module):
    """`forward(tokens (B, T)) -> hidden (B, T, D)` of a user's module. Starts from the weights that `seed` gives."""

    keeps_initialization = True

    def __init__(self, config: CustomConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.module = _make(config)
        self._arguments = _arguments_of(self.module)

    @property
    def embedding(self) -> nn.Embedding | None:
        return _embedding(self.module, self.config)

    @property
    def own_head(self) -> Tensor | None:
        """`(V, D)`, where the module brings the matrix of its head or shares the embedding's."""
        return _head(self.module, self.config)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Any | None = None,
    ) -> Tensor:
        """`tokens (B, T)` int64 -> `(B, T, D)`; the rest as for `Transformer.forward`."""
        if isinstance(cache, RereadingCache):
            return cache.read(self, tokens)
        given = {"positions": positions, "segments": segments, "cache": cache}
        if segments is not None and "segments" not in self._arguments:
            raise ConfigError(
                f"{self.config.target} takes no segments: it can't keep packed documents, or prompts of different "
                "lengths, apart.",
                "Let its forward take segments=None, or use data.document_masking=false and one prompt at a time.",
            )
        with users_code(self.config.target):
            return self.module(tokens, **{name: value for name, value in given.items() if name in self._arguments})

    def new_cache(self, batch: int, length: int, starts: Tensor | None) -> Any:
        """The module's own cache, if it has one."""
        make = getattr(self.module, "new_cache", None)
        if callable(make):
            with users_code(f"{self.config.target}.new_cache"):
                return make(batch, length, starts=starts)
        return None

    def change_context(self, *, max_position_embeddings: int | None = None, rope_theta: float | None = None) -> None:
        """A user's module is what it was built as. Raises `ConfigError` for longer sequences or rotary positions."""
        if rope_theta is not None or (max_position_embeddings or 0) > self.config.max_position_embeddings:
            raise ConfigError(
                f"{self.config.target} was built for {self.config.max_position_embeddings} tokens.",
                "Train it from the beginning with a longer data.sequence_length.",
            )


@dataclass(frozen=True)
class Description:
    """What is known of a user's core without giving it memory."""

    hidden_size: int
    num_hidden_layers: int
    parameters: ParameterCount
    lr_multiplier: float


@functools.lru_cache(maxsize=4096)
def describe(config: CustomConfig) -> Description:
    """Builds the core on the meta device and lets it read a few tokens.

    Raises `ConfigError` where it can't be built, its output is not `(B, T, D)`, or it has no embedding to count.
    """
    with on_meta(config.target):
        module = _make(config)
        length = min(8, config.max_position_embeddings)
        hidden = module(meta_tokens(length))
    if not isinstance(hidden, Tensor) or hidden.shape[:2] != (1, length) or hidden.ndim != 3:
        shape = tuple(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ConfigError(
            f"{config.target} gives {shape} for tokens of shape (1, {length}).",
            "Its forward gives hidden states (B, T, D); the head is put on top of them.",
        )
    width, head, embedding = hidden.size(-1), _head(module, config), _embedding(module, config)
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
        parameters=ParameterCount(
            embedding=rows,
            core=parameters_in(module) - rows - own_head,
            head=config.vocab_size * width,
        ),
        lr_multiplier=float(getattr(module, "lr_multiplier", 1.0)),
    )


@functools.lru_cache(maxsize=4096)
def flops_of_sequence(config: CustomConfig, length: int) -> CountedFlops:
    """Of one forward pass of the core over one sequence: its own `flops`, or counted."""
    with on_meta(config.target):
        module = _make(config)
        if callable(own := getattr(module, "flops", None)):
            return CountedFlops(int(own(length)), 0)
        tokens = meta_tokens(length)
        return count_flops(lambda: module(tokens), config.target)


def _make(config: CustomConfig) -> nn.Module:
    build = import_target(config.target, key="model.kind")
    names = _named(build, config.target)
    sizes = {"size": config.size, "vocab_size": config.vocab_size, "sequence_length": config.max_position_embeddings}
    with users_code(config.target):
        module = build(**{name: value for name, value in sizes.items() if name in names}, **config.settings)
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{config.target} gives {type(module).__name__}, not a torch.nn.Module.",
            "Name a function or class that is called as build(size=, vocab_size=, sequence_length=, **settings).",
        )
    return module


def _named(build: Any, target: str) -> set[str]:
    """The arguments that a builder names. A checkpoint's config.json names it too, so it must look like one."""
    try:
        names = set(inspect.signature(build).parameters)
    except (TypeError, ValueError):
        names = set()
    if missing := {"size", "vocab_size"} - names:
        raise ConfigError(
            f"model.kind={target} takes no {' and no '.join(sorted(missing))}.",
            "It is called as build(size=, vocab_size=, sequence_length=, **settings) and gives a torch.nn.Module.",
        )
    return names


def _arguments_of(module: nn.Module) -> frozenset[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return frozenset(("positions", "segments", "cache"))
    return frozenset(parameter.name for parameter in parameters)


def _embedding(module: nn.Module, config: CustomConfig) -> nn.Embedding | None:
    """The embedding over the vocabulary; None where there is none. Raises `ConfigError` where it can't be told."""
    found = {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.Embedding) and child.num_embeddings == config.vocab_size
    }
    for name in _EMBEDDINGS:
        if name in found:
            return found[name]
    if len(found) > 1:
        raise ConfigError(
            f"{config.target} has several embeddings of {config.vocab_size} rows: {', '.join(found)}.",
            "Call the one of the vocabulary `embedding`.",
        )
    return next(iter(found.values()), None)


def _head(module: nn.Module, config: CustomConfig) -> Tensor | None:
    head = getattr(module, "head_weight", None)
    if head is None and config.tie_word_embeddings:
        embedding = _embedding(module, config)
        if embedding is None:
            raise ConfigError(f"{config.target} has no embedding that a head could share.", "Leave the head untied.")
        return embedding.weight
    if head is not None and not isinstance(head, Tensor):
        raise ConfigError(f"{config.target}.head_weight is {type(head).__name__}, not a parameter (V, D).")
    return head
