"""A model trained by Maquette (https://pypi.org/project/maquette-lm), for use with `transformers`.

Written beside the weights where no family of `transformers` has the model's options, and loaded by
`AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`, a reward model by
`AutoModelForSequenceClassification`. This file stands on its own: it needs
`torch` and `transformers`, not the package that trained the model. It computes the same logits, without a cache.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput, SequenceClassifierOutput


class MaquetteConfig(PretrainedConfig):
    """The shape of the model, under the names that `transformers` uses."""

    model_type = "maquette"

    def __init__(
        self,
        kind: str = "transformer",
        vocab_size: int = 1024,
        hidden_size: int = 64,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 2,
        num_key_value_heads: int | None = None,
        head_dim: int | None = None,
        intermediate_size: int = 256,
        max_position_embeddings: int = 256,
        normalization: str = "rmsnorm",
        normalization_eps: float = 1e-5,
        positions: str = "rotary",
        rope_theta: float = 10_000.0,
        activation: str = "swiglu",
        qk_norm: bool = False,
        bias: bool = False,
        attention_bias: bool = False,
        logit_softcap: float | None = None,
        token_shift: bool = False,
        num_experts: int = 0,
        num_experts_per_tok: int = 0,
        n_shared_experts: int = 0,
        norm_topk_prob: bool = False,
        router_bias_update_rate: float = 0.0,
        sliding_window: int | None = None,
        layer_types: list[str] | None = None,
        **rest: Any,
    ) -> None:
        self.kind = kind
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.normalization = normalization
        self.normalization_eps = normalization_eps
        self.positions = positions
        self.rope_theta = rope_theta
        self.activation = activation
        self.qk_norm = qk_norm
        self.bias = bias
        self.attention_bias = attention_bias
        self.logit_softcap = logit_softcap
        self.token_shift = token_shift
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.n_shared_experts = n_shared_experts
        self.norm_topk_prob = norm_topk_prob
        self.router_bias_update_rate = router_bias_update_rate
        self.sliding_window = sliding_window
        self.layer_types = (
            layer_types or ["sliding_attention" if sliding_window else "full_attention"] * num_hidden_layers
        )
        super().__init__(**{"tie_word_embeddings": False, **rest})


def _norm(config: MaquetteConfig, width: int) -> nn.Module:
    if config.normalization == "layernorm":
        return nn.LayerNorm(width, eps=config.normalization_eps, bias=config.bias)
    return nn.RMSNorm(width, eps=config.normalization_eps)


class Attention(nn.Module):
    def __init__(self, config: MaquetteConfig) -> None:
        super().__init__()
        self.config = config
        queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.query = nn.Linear(config.hidden_size, queries, bias=config.attention_bias)
        self.key = nn.Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.value = nn.Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.output = nn.Linear(queries, config.hidden_size, bias=config.bias)
        if config.qk_norm:
            self.query_norm = nn.RMSNorm(config.head_dim, eps=config.normalization_eps)
            self.key_norm = nn.RMSNorm(config.head_dim, eps=config.normalization_eps)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor] | None, mask: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        heads = (batch, length, -1, self.config.head_dim)
        query, key = self.query(hidden).view(heads), self.key(hidden).view(heads)
        if self.config.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = _rotate(query, *rotation), _rotate(key, *rotation)
        value = self.value(hidden).view(heads)
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        query, key, value = (
            query.transpose(1, 2),
            key.transpose(1, 2).repeat_interleave(groups, dim=1),
            value.transpose(1, 2).repeat_interleave(groups, dim=1),
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, -1))


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions on the two halves of each head; `x (B, T, heads, width)`."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class FeedForward(nn.Module):
    def __init__(self, config: MaquetteConfig, width: int) -> None:
        super().__init__()
        self.activation = config.activation
        if config.activation == "swiglu":
            self.gate = nn.Linear(config.hidden_size, width, bias=config.bias)
        self.up = nn.Linear(config.hidden_size, width, bias=config.bias)
        self.down = nn.Linear(width, config.hidden_size, bias=config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        if self.activation == "swiglu":
            return self.down(F.silu(self.gate(hidden)) * self.up(hidden))
        if self.activation == "gelu":
            return self.down(F.gelu(self.up(hidden), approximate="tanh"))
        return self.down(F.relu(self.up(hidden)).square())


class Stack(nn.Module):
    """A matrix for each expert."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, outputs, inputs))


class MixtureOfExperts(nn.Module):
    """The sum of a token's experts, as the router weighs them, and of one that every token goes through."""

    router_bias: Tensor | None

    def __init__(self, config: MaquetteConfig) -> None:
        super().__init__()
        experts, width, inner = config.num_experts, config.hidden_size, config.intermediate_size
        self.config = config
        self.router = nn.Linear(width, experts, bias=False)
        self.gate, self.up = Stack(experts, width, inner), Stack(experts, width, inner)
        self.down = Stack(experts, inner, width)
        self.shared = FeedForward(config, config.n_shared_experts * inner) if config.n_shared_experts else None
        self.register_buffer("router_bias", torch.zeros(experts) if config.router_bias_update_rate else None)

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.flatten(0, 1)
        probabilities = F.linear(rows.float(), self.router.weight.float()).softmax(dim=-1)
        ranked = probabilities if self.router_bias is None else probabilities + self.router_bias
        chosen = ranked.topk(self.config.num_experts_per_tok, dim=-1).indices
        weights = probabilities.gather(-1, chosen)
        if self.config.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        mixed = torch.zeros_like(rows)
        for expert in range(self.config.num_experts):
            token, place = (chosen == expert).nonzero(as_tuple=True)
            inner = F.silu(F.linear(rows[token], self.gate.weight[expert]))
            inner = inner * F.linear(rows[token], self.up.weight[expert])
            given = F.linear(inner, self.down.weight[expert]) * weights[token, place, None].to(rows.dtype)
            mixed = mixed.index_add(0, token, given)
        mixed = mixed.view_as(hidden)
        return mixed if self.shared is None else mixed + self.shared(hidden)


class Block(nn.Module):
    def __init__(self, config: MaquetteConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config, config.hidden_size)
        self.attention = Attention(config)
        self.feed_forward_norm = _norm(config, config.hidden_size)
        sparse = config.num_experts > 0
        self.feed_forward = MixtureOfExperts(config) if sparse else FeedForward(config, config.intermediate_size)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor] | None, mask: Tensor) -> Tensor:
        hidden = hidden + self.attention(self.attention_norm(hidden), rotation, mask)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


class Core(nn.Module):
    def __init__(self, config: MaquetteConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        if config.positions == "learned":
            self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        if config.token_shift:
            self.token_shift = nn.Parameter(torch.zeros(config.hidden_size))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = _norm(config, config.hidden_size)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None) -> Tensor:
        """`attention_mask (B, T)`: 0 for padding, on either side; positions count the real tokens."""
        real = torch.ones_like(tokens, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        positions = (real.cumsum(dim=-1) - 1).clamp_min(0)
        hidden = self.embedding(tokens)
        if self.config.token_shift:
            previous = F.pad(hidden * real[..., None], (0, 0, 1, -1))
            hidden = hidden + self.token_shift * previous
        rotation = None
        if self.config.positions == "learned":
            hidden = hidden + self.positions(positions)
        else:
            steps = torch.arange(0, self.config.head_dim, 2, device=tokens.device, dtype=torch.float32)
            frequencies = self.config.rope_theta ** (-steps / self.config.head_dim)
            angles = positions[:, :, None, None] * frequencies
            rotation = (angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype))
        places = torch.arange(tokens.size(1), device=tokens.device)
        back = places[:, None] - places
        # A padded position sees itself, so that no row of the softmax is empty.
        mask = ((back >= 0) & real[:, None, :]) | (back == 0)
        near_mask = mask & (back < (self.config.sliding_window or len(places)))
        for layer, layer_type in zip(self.layers, self.config.layer_types, strict=True):
            near = near_mask if layer_type == "sliding_attention" else mask
            hidden = layer(hidden, rotation, near[:, None])
        return self.norm(hidden)


class MaquetteForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = MaquetteConfig
    base_model_prefix = "core"
    _tied_weights_keys = {"head.weight": "core.embedding.weight"}  # noqa: RUF012  # as transformers asks for it

    def __init__(self, config: MaquetteConfig) -> None:
        super().__init__(config)
        self.core = Core(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.core.embedding

    def set_input_embeddings(self, value: Any) -> None:
        self.core.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        self.head = new_embeddings

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask")}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **rest: Any,
    ) -> CausalLMOutput:
        """Logits `(B, T, V)`, and with `labels` (as `input_ids`; -100 does not count) the mean loss in nats."""
        logits = self.head(self.core(input_ids, attention_mask))
        if self.config.logit_softcap is not None:
            logits = self.config.logit_softcap * torch.tanh(logits / self.config.logit_softcap)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)


class MaquetteForSequenceClassification(PreTrainedModel):
    """A reward model: one number for a text, read at its last token."""

    config_class = MaquetteConfig
    base_model_prefix = "core"

    def __init__(self, config: MaquetteConfig) -> None:
        super().__init__(config)
        self.core = Core(config)
        self.score = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.core.embedding

    def set_input_embeddings(self, value: Any) -> None:
        self.core.embedding = value

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **rest: Any) -> SequenceClassifierOutput:
        """Rewards `(B, 1)`; without an `attention_mask` tokens with the id of padding are padding."""
        if attention_mask is None:
            attention_mask = (input_ids != self.config.pad_token_id).long()
        scores = self.score(self.core(input_ids, attention_mask)).squeeze(-1)
        places = torch.arange(input_ids.size(1), device=input_ids.device)
        last = (places * attention_mask.bool()).argmax(dim=-1, keepdim=True)
        return SequenceClassifierOutput(logits=scores.gather(1, last))
