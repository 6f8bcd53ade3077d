"""The shape of a model, and what it costs: parameters and FLOPs, counted exactly. Free of torch."""

import math
from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting


@dataclass
class ModelConfig:
    """`conf/model/*.yaml`: the architecture. Sizes left null come from the recipe (`size=`)."""

    kind: str = setting("transformer", "architecture", choices=("transformer", "lstm"))
    hidden_size: int | None = setting(None, "width of the residual stream; by default the recipe's", minimum=4)
    num_hidden_layers: int | None = setting(None, "number of layers; by default the recipe's", minimum=1)
    num_attention_heads: int | None = setting(None, "attention heads; by default the recipe's", minimum=1)
    num_key_value_heads: int | None = setting(
        None, "key-value heads: fewer than heads is grouped-query, 1 multi-query", minimum=1
    )
    head_dim: int | None = setting(None, "width of a head; by default hidden_size / heads", minimum=2)
    intermediate_size: int | None = setting(None, "inner width of the feed-forward; by default the recipe's", minimum=4)
    normalization: str = setting("rmsnorm", "normalisation before each block", choices=("rmsnorm", "layernorm"))
    normalization_eps: float = setting(1e-5, "added to the variance", minimum=0.0)
    positions: str = setting("rotary", "how positions are known", choices=("rotary", "learned"))
    rope_theta: float = setting(10_000.0, "base of the rotary frequencies", minimum=1.0)
    activation: str = setting("swiglu", "feed-forward", choices=("swiglu", "gelu", "relu2"))
    qk_norm: bool = setting(False, "normalise queries and keys")
    tie_word_embeddings: bool = setting(False, "the head shares the embedding's matrix")
    bias: bool = setting(False, "biases in linear layers")
    logit_softcap: float | None = setting(None, "logits are squashed to +- this by tanh", minimum=1.0)
    token_shift: bool = setting(True, "each embedding takes a learned share of the previous token's")
    dropout: float = setting(0.0, "dropout in embeddings, attention and feed-forward", minimum=0.0, maximum=0.9)


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of one transformer. Fields left None take their usual value; read them through the properties.

    `attention_bias` gives biases to the query, key and value projections alone (Qwen2) and follows `bias` by default.
    Raises `ConfigError` where sizes do not go together.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int = 256
    normalization: str = "rmsnorm"
    normalization_eps: float = 1e-5
    positions: str = "rotary"
    rope_theta: float = 10_000.0
    activation: str = "swiglu"
    qk_norm: bool = False
    tie_word_embeddings: bool = False
    bias: bool = False
    attention_bias: bool | None = None
    logit_softcap: float | None = None
    token_shift: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(
            self, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"
        )
        _require_positive(self, "num_key_value_heads", "head_dim", "intermediate_size", "logit_softcap")
        _require_known(self, "normalization", ("rmsnorm", "layernorm"))
        _require_known(self, "positions", ("rotary", "learned"))
        _require_known(self, "activation", ("swiglu", "gelu", "relu2"))
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}.",
                "Choose heads that divide the width, or set head_dim.",
            )
        if self.num_attention_heads % self.key_value_heads:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}.",
                "Each key-value head serves the same number of heads.",
            )
        if self.positions == "rotary" and self.width_of_head % 2:
            raise ConfigError(
                f"Rotary positions turn pairs of channels, but a head is {self.width_of_head} wide.",
                "Choose an even head_dim.",
            )
        _require_dropout(self)

    @property
    def key_value_heads(self) -> int:
        """Key-value heads: as many as heads unless set."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def width_of_head(self) -> int:
        """Channels of one head: width / heads unless set."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def inner_width(self) -> int:
        """Inner width of the feed-forward: 4 x width, or for SwiGLU 8/3 x width in whole multiples of 32, so that its
        three matrices weigh what two of four times the width would (Shazeer 2020, section 2)."""
        if self.intermediate_size is not None:
            return self.intermediate_size
        return 32 * math.ceil(8 * self.hidden_size / 3 / 32) if self.activation == "swiglu" else 4 * self.hidden_size

    @property
    def query_key_value_bias(self) -> bool:
        """Whether the query, key and value projections have biases."""
        return self.bias if self.attention_bias is None else self.attention_bias


@dataclass(frozen=True)
class LSTMConfig:
    """The shape of the recurrent baseline: as many channels in embedding, state and output."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False
    logit_softcap: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _require_positive(
            self, "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "logit_softcap"
        )
        _require_dropout(self)


CoreConfig = TransformerConfig | LSTMConfig


def _require_positive(config: CoreConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name}={value} is out of range.", "Allowed: above 0.")


def _require_known(config: CoreConfig, name: str, known: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in known:
        raise ConfigError(f"{name}={value} is not known.", f"Allowed: {', '.join(known)}.")


def _require_dropout(config: CoreConfig) -> None:
    if not 0.0 <= config.dropout < 1.0:
        raise ConfigError(f"dropout={config.dropout} is out of range.", "Allowed: at least 0 and below 1.")


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part. `core` is everything but the two vocabulary matrices. A tied matrix is counted once, as the
    head, where it is multiplied with: so `core + head`, the N of a law, means the same in tied and untied models."""

    embedding: int
    core: int
    head: int

    @property
    def total(self) -> int:
        return self.embedding + self.core + self.head


def count_parameters(config: CoreConfig) -> ParameterCount:
    """Exact numbers of parameters of `LanguageModel(config)`, from its shape alone."""
    matrix = config.vocab_size * config.hidden_size
    core = _lstm_parameters(config) if isinstance(config, LSTMConfig) else _transformer_parameters(config)
    return ParameterCount(embedding=0 if config.tie_word_embeddings else matrix, core=core, head=matrix)


def _transformer_parameters(config: TransformerConfig) -> int:
    queries = config.num_attention_heads * config.width_of_head
    key_values = config.key_value_heads * config.width_of_head
    norm = config.hidden_size * (2 if config.normalization == "layernorm" and config.bias else 1)
    layer = _attention_weights(config) + _feed_forward_weights(config) + 2 * norm
    if config.query_key_value_bias:
        layer += queries + 2 * key_values
    if config.bias:
        layer += config.hidden_size  # of the attention's output
        layer += config.inner_width * (2 if config.activation == "swiglu" else 1) + config.hidden_size
    if config.qk_norm:
        layer += 2 * config.width_of_head
    core = config.num_hidden_layers * layer + norm
    if config.positions == "learned":
        core += config.max_position_embeddings * config.hidden_size
    if config.token_shift:
        core += config.hidden_size
    return core


def _attention_weights(config: TransformerConfig) -> int:
    """Entries of the query, key, value and output matrices of one layer."""
    return 2 * config.hidden_size * config.width_of_head * (config.num_attention_heads + config.key_value_heads)


def _feed_forward_weights(config: TransformerConfig) -> int:
    """Entries of the feed-forward matrices of one layer."""
    return (3 if config.activation == "swiglu" else 2) * config.hidden_size * config.inner_width


def _lstm_parameters(config: LSTMConfig) -> int:
    # Four gates, each with a matrix from below, one from the step before, and PyTorch's two biases.
    return config.num_hidden_layers * 4 * (2 * config.hidden_size * config.hidden_size + 2 * config.hidden_size)


@dataclass(frozen=True)
class FlopCount:
    """Floating-point operations by part; a multiplication and an addition are two. `core` holds the products with the
    core's matrices, `attention` those of queries, keys and values with one another, `head` those with the head."""

    core: int
    attention: int
    head: int

    @property
    def total(self) -> int:
        return self.core + self.attention + self.head


def forward_flops(config: CoreConfig, tokens: int, context: int) -> FlopCount:
    """FLOPs of the matrix products of one forward pass over `tokens` tokens in sequences of `context`.

    Attention is counted by the convention of Hoffmann et al. 2022 (appendix F) and Chowdhery et al. 2022 (appendix B):
    every query meets all `context` keys, although a causal kernel may skip those ahead of it. Norms, activations,
    softmax and look-ups are not counted; no more are numbers recomputed to save memory.
    """
    head = 2 * tokens * config.vocab_size * config.hidden_size
    if isinstance(config, LSTMConfig):
        return FlopCount(core=2 * tokens * config.num_hidden_layers * 8 * config.hidden_size**2, attention=0, head=head)
    weights = _attention_weights(config) + _feed_forward_weights(config)
    scores_and_sums = 2 * 2 * context * config.num_attention_heads * config.width_of_head
    return FlopCount(
        core=2 * tokens * config.num_hidden_layers * weights,
        attention=tokens * config.num_hidden_layers * scores_and_sums,
        head=head,
    )


def training_flops(config: CoreConfig, tokens: int, context: int) -> FlopCount:
    """FLOPs of forward and backward over `tokens` tokens: each product of the forward pass needs two in the backward
    pass, one for the gradient of either factor. For the rest see `forward_flops`."""
    forward = forward_flops(config, tokens, context)
    return FlopCount(core=3 * forward.core, attention=3 * forward.attention, head=3 * forward.head)


def kaplan_compute(config: CoreConfig, tokens: int) -> int:
    """Training FLOPs as Kaplan et al. 2020 count them (section 2.1): 6 N D with N the parameters of the core alone."""
    return 6 * count_parameters(config).core * tokens
