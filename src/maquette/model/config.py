"""The shape of a model, and what it costs: parameters and FLOPs, counted exactly. Free of torch."""

import dataclasses
from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting


@dataclass
class ModelConfig:
    """`conf/model/*.yaml`: the architecture. Sizes left null come from the recipe (`size=`)."""

    kind: str = setting("transformer", "architecture", choices=("transformer", "lstm"))
    width: int | None = setting(None, "width of the residual stream; by default the recipe's", minimum=4)
    num_layers: int | None = setting(None, "number of layers; by default the recipe's", minimum=1)
    num_heads: int | None = setting(None, "attention heads; by default the recipe's", minimum=1)
    num_key_value_heads: int | None = setting(None, "key-value heads: fewer than heads is grouped-query, 1 multi-query", minimum=1)
    head_width: int | None = setting(None, "width of a head; by default width / heads", minimum=2)
    feed_forward_width: int | None = setting(None, "inner width of the feed-forward; by default the recipe's", minimum=4)
    normalization: str = setting("rmsnorm", "normalisation before each block", choices=("rmsnorm", "layernorm"))
    normalization_eps: float = setting(1e-5, "added to the variance", minimum=0.0)
    positions: str = setting("rotary", "how positions are known", choices=("rotary", "learned"))
    rope_base: float = setting(10_000.0, "base of the rotary frequencies", minimum=1.0)
    activation: str = setting("swiglu", "feed-forward", choices=("swiglu", "gelu", "relu2"))
    qk_norm: bool = setting(False, "normalise queries and keys")
    tied: bool = setting(False, "the head shares the embedding's matrix")
    bias: bool = setting(False, "biases in linear layers")
    logit_softcap: float | None = setting(None, "logits are squashed to +- this by tanh", minimum=1.0)
    token_shift: bool = setting(True, "each embedding takes a learned share of the previous token's")
    dropout: float = setting(0.0, "dropout in embeddings, attention and feed-forward", minimum=0.0, maximum=0.9)
