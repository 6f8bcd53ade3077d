"""The transformer core: tokens in, hidden states out. Heads (heads.py) and losses (likelihoods.py) stand on top of it.

Notable:
- normalisation before each block (RMSNorm or LayerNorm) and once at the end
- rotary positions on the halves of a head as in Llama, or learned ones as in GPT-2
- SwiGLU, GELU (tanh form) or squared ReLU; or a mixture of experts (experts.py)
- multi-head, grouped-query or multi-query attention, with or without QK-norm
- token shift: each embedding takes a learned share of the previous token's, which for small models is worth more than
  half again the compute; off for imported families
- packed documents (`segments`): neither attention nor token shift crosses from one to the next
- sliding windows in all layers or in some (Beltagy et al. 2020)
- a cache (cache.py) for generation, also for prompts of different lengths
- no biases and no dropout unless asked for

Letters in shapes: `B` sequences, `T` tokens each, `D` channels, `H` heads, `K` key-value heads, `W` channels of a head.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.model.architecture import ACTIVATIONS, MixtureOfExpertsConfig, TransformerConfig
from maquette.model.attention import (
    PackedSequences,
    Seen,
    attend,
    packed_sequences,
    takes_packed_sequences,
    what_is_seen,
)
from maquette.model.cache import KeyValueCache, RereadingCache
from maquette.model.custom_parts import attention_keeps_cache, make_activation, make_attention
from maquette.model.experts import MixtureOfExperts
from maquette.model.fused import RootMeanSquareNorm, SwiGLU, rotated_heads, use_fused_backward
from maquette.model.initialization import initialize, unfilled_embedding
from maquette.model.linear import Linear, are_plain
from maquette.model.rotary import Rotation, rotary_table, rotate
from maquette.model.tensor_parallel import enter, leave, own


class Transformer(nn.Module):
    """`forward(tokens (B, T)) -> hidden (B, T, D)`, after the last norm. Starts from the weights that `seed` gives."""

    def __init__(self, config: TransformerConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = unfilled_embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.positions = unfilled_embedding(config.max_position_embeddings, config.hidden_size)
        if config.token_shift:
            self.token_shift = nn.Parameter(torch.empty(config.hidden_size))
        with torch.random.fork_rng(devices=[], enabled=bool(config.own_code)):
            if config.own_code:  # a user's parts draw their first weights themselves
                torch.default_generator.manual_seed(seed)
            self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = normalization(config)
        initialize(self, config, seed)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KeyValueCache | RereadingCache | None = None,
        packed: PackedSequences | None = None,
    ) -> Tensor:
        """`tokens (B, T)` int64 -> `(B, T, D)`.

        `positions (B, T)` or `(T,)`: where each token stands; by default counted from 0, with a cache from where the
        row's text begins. `segments (B, T)`: the document each token belongs to; tokens see only their own. `packed`:
        of the segments, where they came with the batch: it saves waiting for the device. `cache`: the tokens follow
        those in it. Raises `ConfigError` beyond the context of learned positions.
        """
        if segments is not None and cache is not None:
            raise ValueError("A cache holds one document a row; segments do not go with it.")
        if isinstance(cache, RereadingCache):
            return cache.read(self, tokens)
        if positions is None:
            positions = self.default_positions(tokens, cache)
        hidden = self.embedding(tokens)
        if self.config.token_shift:
            hidden = torch.addcmul(hidden, self.previous(tokens, hidden, segments, cache), self.token_shift)
        if self.config.positions == "learned":
            hidden = hidden + self.positions(positions)
            rotation = None
        else:
            rotation = rotary_table(positions, self.config.width_of_head, self.config.rope_theta, hidden.dtype)
        hidden = F.dropout(hidden, self.config.dropout, self.training)
        seen = self.what_is_seen(hidden, segments, packed, cache)
        for index, (layer, window) in enumerate(zip(self.layers, self.config.windows, strict=True)):
            # With a cache never compiled: for each layer's number and each length it would be compiled again.
            block = layer if cache is None else layer._call_impl
            hidden = block(hidden, rotation, seen[window], cache, index)
        if cache is not None:
            cache.advance(tokens)
        return self.norm(hidden)

    def what_is_seen(
        self, hidden: Tensor, segments: Tensor | None, packed: PackedSequences | None, cache: KeyValueCache | None
    ) -> dict[int | None, Seen]:
        """For each window among the layers, what tokens attend to there (attention.py)."""
        config, (batch, length, _) = self.config, hidden.shape
        apart = config.attention is None and takes_packed_sequences(
            hidden, length, config.width_of_head, config.dropout if self.training else 0.0, cached=cache is not None
        )
        if apart and segments is not None and packed is None:
            packed = packed_sequences(segments)
        if packed is not None and self.layers[0]._compiled_call_impl is not None:
            for bounds in packed[:2]:  # or the layers are compiled again for each number of documents
                torch._dynamo.maybe_mark_dynamic(bounds, 0)
        return {
            window: what_is_seen(
                batch, length, hidden.device,
                window=window, segments=segments, packed=packed, cache=cache, apart=apart,
            )
            for window in set(config.windows)
        }  # fmt: skip

    @property
    def own_head(self) -> Tensor | None:
        """The head's matrix `(V, D)` where it is the embedding's."""
        return self.embedding.weight if self.config.tie_word_embeddings else None

    def default_positions(self, tokens: Tensor, cache: KeyValueCache | None) -> Tensor:
        """`(T,)`, or `(B, T)` where rows of a cache begin at different columns."""
        used = 0 if cache is None else cache.used
        end = used + tokens.size(1)
        if self.config.positions == "learned" and end > self.config.max_position_embeddings:
            raise ConfigError(
                f"The text is {end} tokens long; the model knows {self.config.max_position_embeddings} positions.",
                "Shorten it, or use a model with rotary positions.",
            )
        columns = torch.arange(used, end, device=tokens.device)
        if cache is None or cache.starts is None:
            return columns
        return (columns - cache.starts[:, None]).clamp(min=0)

    def previous(
        self, tokens: Tensor, embedded: Tensor, segments: Tensor | None, cache: KeyValueCache | None
    ) -> Tensor:
        """The embedding of the token before each, `(B, T, D)`; zero where a document begins."""
        if cache is not None and cache.last_token is not None:
            shifted = torch.cat([self.embedding(cache.last_token), embedded[:, :-1]], dim=1)
        else:
            shifted = F.pad(embedded, (0, 0, 1, -1))
        if segments is not None:
            shifted = shifted * F.pad(segments[:, 1:] == segments[:, :-1], (1, 0))[..., None]
        elif cache is not None and cache.starts is not None:
            columns = torch.arange(cache.used, cache.used + tokens.size(1), device=tokens.device)
            shifted = shifted * (columns > cache.starts[:, None])[..., None]
        return shifted

    def change_context(self, *, max_position_embeddings: int | None = None, rope_theta: float | None = None) -> None:
        """Goes on with longer sequences or another rotary base, such as in a long-context phase; no weight changes."""
        if self.config.positions == "learned":
            raise ConfigError("The context of learned positions is fixed.", "Use model.positions=rotary.")
        self.config = dataclasses.replace(
            self.config,
            max_position_embeddings=max_position_embeddings or self.config.max_position_embeddings,
            rope_theta=rope_theta or self.config.rope_theta,
        )


class Block(nn.Module):
    """Attention, then feed-forward; each reads the normalised residual stream and adds to it."""

    def __init__(self, config: TransformerConfig, layer: int = 0) -> None:
        super().__init__()
        self.attention_norm = normalization(config)
        self.attention = Attention(config, layer) if config.attention is None else make_attention(config, layer)
        self.keeps_cache = attention_keeps_cache(config)
        self.feed_forward_norm = normalization(config)
        self.feed_forward = make_feed_forward(config)
        self.dropout = config.dropout

    def forward(
        self, hidden: Tensor, rotation: Rotation | None, mask: Seen, cache: KeyValueCache | None, index: int
    ) -> Tensor:
        cached = {"cache": cache, "layer": index} if self.keeps_cache else {}
        attended = self.attention(self.attention_norm(hidden), rotation=rotation, mask=mask, **cached)
        hidden = hidden + F.dropout(attended, self.dropout, self.training)
        transformed = self.feed_forward(self.feed_forward_norm(hidden))
        return hidden + F.dropout(transformed, self.dropout, self.training)


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017); `H / K` heads share a key-value head (Ainslie et al. 2023)."""

    def __init__(self, config: TransformerConfig, layer: int = 0) -> None:
        super().__init__()
        self.window = config.windows[layer]
        self.heads, self.key_value_heads, self.width = (
            config.num_attention_heads,
            config.key_value_heads,
            config.width_of_head,
        )
        self.dropout = config.dropout
        bias = config.query_key_value_bias
        self.query = Linear(config.hidden_size, self.heads * self.width, bias=bias)
        self.key = Linear(config.hidden_size, self.key_value_heads * self.width, bias=bias)
        self.value = Linear(config.hidden_size, self.key_value_heads * self.width, bias=bias)
        self.output = Linear(self.heads * self.width, config.hidden_size, bias=config.bias)
        if config.qk_norm:
            self.query_norm = RMSNorm(self.width, eps=config.normalization_eps)
            self.key_norm = RMSNorm(self.width, eps=config.normalization_eps)
        self.qk_norm = config.qk_norm

    def forward(
        self,
        hidden: Tensor,
        *,
        rotation: Rotation | None = None,
        mask: Seen = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        query, key, value = self.project(enter(hidden, self.query.weight), rotation)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)  # (B, H or K, T, W)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask, window=self.window, dropout=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def project(self, hidden: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `(B, T, H, W)`, keys and values `(B, T, K, W)`; the first two turned by their positions."""
        plain = not self.qk_norm and are_plain(self.query, self.key, self.value) and self.query.bias is None
        if rotation is not None and plain and use_fused_backward(hidden):
            matrices = own(self.query.weight), own(self.key.weight), own(self.value.weight)
            return rotated_heads(hidden, *matrices, rotation, self.width)
        query = self.query(hidden).unflatten(-1, (-1, self.width))
        key = self.key(hidden).unflatten(-1, (-1, self.width))
        value = self.value(hidden).unflatten(-1, (-1, self.width))
        if self.qk_norm:
            query, key = self.query_norm(query, self.query.weight), self.key_norm(key, self.query.weight)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        return query, key, value


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020), GELU in its tanh form (Hendrycks and Gimpel 2016), squared ReLU (So et al. 2021), or a
    user's (`custom_parts.Activation`)."""

    def __init__(self, config: TransformerConfig, inner_width: int | None = None) -> None:
        super().__init__()
        inner = inner_width or config.inner_width
        self.activation, self.is_gated = config.activation, config.is_gated
        if self.is_gated:
            self.gate = Linear(config.hidden_size, inner, bias=config.bias)
        self.up = Linear(config.hidden_size, inner, bias=config.bias)
        self.down = Linear(inner, config.hidden_size, bias=config.bias)
        self.own = None if self.activation in ACTIVATIONS else make_activation(self.activation)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = enter(hidden, self.up.weight)
        if self.own is not None:
            up = self.up(hidden)
            return self.down(self.own(self.gate(hidden)) * up if self.is_gated else self.own(up))
        if self.activation == "swiglu":
            if use_fused_backward(hidden) and are_plain(self.gate, self.up, self.down) and self.up.bias is None:
                matrices = own(self.gate.weight), own(self.up.weight), own(self.down.weight)
                return leave(SwiGLU.apply(hidden, *matrices), self.down.weight)
            return self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        if self.activation == "gelu":
            return self.down(F.gelu(self.up(hidden), approximate="tanh"))
        return self.down(F.relu(self.up(hidden)).square())


def make_feed_forward(config: TransformerConfig) -> nn.Module:
    """One for every token, or a mixture of experts; several shared ones are as one that is so many times as wide."""
    if not isinstance(config, MixtureOfExpertsConfig):
        return FeedForward(config)
    shared = config.n_shared_experts * config.inner_width
    return MixtureOfExperts(config, FeedForward(config, shared) if shared else None)


class RMSNorm(nn.RMSNorm):
    """`x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019)."""

    def forward(self, x: Tensor, of: Tensor | None = None) -> Tensor:
        """`of`: the weight whose products `x` are, of which each process may have some."""
        weight = self.weight if of is None else enter(self.weight, of)
        if use_fused_backward(x):
            return RootMeanSquareNorm.apply(x, weight, self.eps)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


def normalization(config: TransformerConfig) -> nn.Module:
    """RMSNorm, or LayerNorm (Ba et al. 2016) over the channels."""
    if config.normalization == "rmsnorm":
        return RMSNorm(config.hidden_size, eps=config.normalization_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.normalization_eps, bias=config.bias)
