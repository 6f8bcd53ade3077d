"""One token more for every row: the transformer's forward pass, arranged for a single new token.

With small models a step of generation is many tiny operations, and what each costs beside its arithmetic decides the
speed. `Decoder` gives the numbers of `Transformer.forward` with one token and a cache, with about half the operations:
matrices instead of three-dimensional tensors, a rotary table made once, and one query against the cache in the layout
that needs no copy for grouped heads. Prompts are read by `Transformer.forward` itself.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maquette.model.cache import KeyValueCache
from maquette.model.rotary import rotary_table
from maquette.model.transformer import Attention, Block, Transformer


class Decoder:
    """Goes on from a cache that holds the prompts: `decoder(tokens (B,), positions) -> hidden (B, D)`.

    For inference alone, without dropout and gradients.
    """

    def __init__(self, core: Transformer, cache: KeyValueCache) -> None:
        self.core, self.cache, self.config = core, cache, core.config
        self.layers = cast("list[Block]", list(core.layers))
        self._see()
        self.rotation: tuple[Tensor, Tensor] | None = None
        if self.config.positions == "rotary":
            positions = torch.arange(cache.length, device=cache.keys.device)
            dtype = core.embedding.weight.dtype
            self.rotation = rotary_table(positions, self.config.width_of_head, self.config.rope_theta, dtype)

    def __call__(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """`positions (B,)`: where each token stands in its row; by default all in the next column."""
        core, cache = self.core, self.cache
        if positions is None:
            positions = self._next_positions()
        hidden = core.embedding(tokens)
        if self.config.token_shift:
            assert cache.last_token is not None
            hidden = torch.addcmul(hidden, core.embedding(cache.last_token[:, 0]), core.token_shift)
        turns = None
        if self.rotation is None:
            hidden = hidden + core.positions(positions)
        else:
            turns = (self.rotation[0][positions], self.rotation[1][positions])
        seen = self._seen()
        for index, layer in enumerate(self.layers):
            normal = _normalized(layer.attention_norm, hidden)
            attention = cast(Attention, layer.attention)
            hidden = hidden + attention.output(self._attend(attention, index, normal, turns, seen[attention.window]))
            hidden = hidden + layer.feed_forward(_normalized(layer.feed_forward_norm, hidden))
        self._advance(tokens)
        return _normalized(core.norm, hidden)

    def keep(self, rows: Tensor) -> None:
        """Goes on with `rows` alone, in the cache too."""
        self.cache.keep(rows)
        self._see()

    def _see(self) -> None:
        cache = self.cache
        columns = torch.arange(cache.length, device=cache.keys.device)
        # (B, 1, 1, columns): what a row may see, needed only where rows begin at different columns
        self.visible = None if cache.starts is None else (columns >= cache.starts[:, None])[:, None, None]

    def _next_positions(self) -> Tensor:
        return torch.tensor([self.cache.used], device=self.cache.keys.device)

    def _seen(self) -> dict[int | None, Tensor | None]:
        """For each window among the layers, what the new token sees of what `_extend` gives; None: all of it."""
        seen = {None: None if self.visible is None else self.visible[..., : self.cache.used + 1]}
        return seen | {window: self.cache.seen_in_ring() for window in set(self.config.windows) - {None}}

    def _extend(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.extend(index, key, value)

    def _advance(self, tokens: Tensor) -> None:
        self.cache.advance(tokens[:, None])

    def _attend(
        self,
        attention: Attention,
        index: int,
        hidden: Tensor,
        turns: tuple[Tensor, Tensor] | None,
        visible: Tensor | None,
    ) -> Tensor:
        """`hidden (B, D)` -> what the heads gather, `(B, H W)`."""
        config, batch = self.config, hidden.size(0)
        width, heads = config.width_of_head, config.num_attention_heads
        query, key = attention.query(hidden), attention.key(hidden)
        if config.qk_norm:
            query = _normalized(attention.query_norm, query.view(batch, heads, width)).view(batch, -1)
            key = _normalized(attention.key_norm, key.view(batch, -1, width)).view(batch, -1)
        if turns is not None:
            both = _turned(torch.cat([query, key], dim=1).view(batch, -1, width), *turns)
            query, key = both[:, :heads], both[:, heads:]
        value = attention.value(hidden).view(batch, -1, 1, width)
        keys, values = self._extend(index, key.reshape(batch, -1, 1, width), value)
        # Heads that share keys and values stand where a longer text would have its queries: nothing is repeated.
        # Angles are in float32: in bf16-true so is what they have turned.
        grouped = query.reshape(batch, config.key_value_heads, -1, width).to(keys.dtype)
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=visible).reshape(batch, -1)


def _normalized(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(x)`; RMSNorm, which PyTorch puts together from many operations on a CPU, by hand."""
    if not isinstance(norm, nn.RMSNorm) or x.device.type != "cpu" or x.dtype != torch.float32:
        return norm(x)
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.size(-1)).add_(norm.eps).rsqrt_()
    return torch.mul(x, scale).mul_(norm.weight)


def _turned(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`transformer.rotate` of `vectors (B, heads, W)`, with fewer results in between."""
    turned = torch.empty_like(vectors, dtype=cosine.dtype)
    (first, second), (new_first, new_second) = vectors.chunk(2, dim=-1), turned.chunk(2, dim=-1)
    torch.mul(first, cosine, out=new_first).addcmul_(second, sine, value=-1)
    torch.mul(second, cosine, out=new_second).addcmul_(first, sine)
    return turned
