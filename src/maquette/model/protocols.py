"""What a user's own parts of a model have: an activation, an attention layer, a whole core.

They are named by their dotted name and live in a package of the user's, or in a file beside the user:

    maquette train model.activation=stranger.model.Snake
    maquette train model.attention=stranger.model.LinearAttention
    maquette train model.kind=stranger.model.build model.settings.depth=4

All are built from what they are given alone, with seeded random numbers of their own, so a run is a function of its
seed; linear layers and embeddings of an activation or attention start as the core's do (initialization.py), everything
else of a user's as its class starts it. Parameters and FLOPs are counted on PyTorch's meta device unless `flops` says.
What they can't do is said where it is asked for: see `AttentionLayer.keeps_cache` and `maquette export`.
"""

from typing import Any, Protocol

from torch import Tensor, nn


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


Factory = type[nn.Module]
