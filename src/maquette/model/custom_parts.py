"""A user's own parts of a model: an activation, an attention layer, or a whole core (custom.py).

They are named by their dotted name and live in a package of the user's, or in a file beside the user:

    maquette train model.activation=stranger.model.Snake
    maquette train model.attention=stranger.model.LinearAttention
    maquette train model.kind=stranger.model.build model.settings.depth=4

All are built from what they are given alone, with seeded random numbers of their own, so a run is a function of its
seed; linear layers and embeddings of an activation or attention start as the core's do (initialization.py), everything
else of a user's as its class starts it. Parameters and FLOPs: custom_counts.py.
What they can't do: see `AttentionLayer.keeps_cache` and `maquette export`.
"""

import inspect
from typing import Any, Protocol

from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import import_target, users_code

_EMBEDDINGS = ("embedding", "embed_tokens", "wte", "tok_embeddings", "token_embedding")


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


def is_gated(activation: str) -> bool:
    """Whether a user's activation acts on a gate."""
    return bool(getattr(import_target(activation, key="model.activation"), "gated", False))


def make_activation(name: str) -> nn.Module:
    """A user's activation as a module."""
    target = import_target(name, key="model.activation")
    with users_code(name):
        made = target() if isinstance(target, type) else target
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


def make_attention(config: Any, layer: int) -> nn.Module:
    """A user's attention layer."""
    name = str(config.attention)
    target = import_target(name, key="model.attention")
    with users_code(name):
        made = target(config, layer)
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"model.attention={name} gives {type(made).__name__}, not a torch.nn.Module.",
            "Name a class that is made as Class(config, layer).",
        )
    return made


def attention_keeps_cache(config: Any) -> bool:
    """Whether generation may give the attention layers a cache."""
    return config.attention is None or bool(
        getattr(import_target(config.attention, key="model.attention"), "keeps_cache", False)
    )


def make_core(config: Any) -> nn.Module:
    """A user's core, from a `CustomConfig`."""
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


def embedding_of(module: nn.Module, config: Any) -> nn.Embedding | None:
    """The embedding over the vocabulary; None where there is none. Raises `ConfigError` where it can't be told."""
    embeddings = {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, nn.Embedding) and child.num_embeddings == config.vocab_size
    }
    for name in _EMBEDDINGS:
        if name in embeddings:
            return embeddings[name]
    if len(embeddings) > 1:
        raise ConfigError(
            f"{config.target} has several embeddings of {config.vocab_size} rows: {', '.join(embeddings)}.",
            "Call the one of the vocabulary `embedding`.",
        )
    return next(iter(embeddings.values()), None)


def head_of(module: nn.Module, config: Any) -> Tensor | None:
    """The matrix of a head of its own, or of the embedding where the head is to share it; else None."""
    head = getattr(module, "head_weight", None)
    if head is None and config.tie_word_embeddings:
        embedding = embedding_of(module, config)
        if embedding is None:
            raise ConfigError(f"{config.target} has no embedding that a head could share.", "Leave the head untied.")
        return embedding.weight
    if head is not None and not isinstance(head, Tensor):
        raise ConfigError(f"{config.target}.head_weight is {type(head).__name__}, not a parameter (V, D).")
    return head
