"""The architectures: the shape of a transformer, of the LSTM baseline and of a user's own core. Free of torch.

A user's code (custom_parts.py, custom_counts.py) is imported only where a config names some.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from maquette.artifacts.errors import ConfigError, StageError
from maquette.artifacts.settings import is_dotted, unknown_choice
from maquette.model.core_config import CoreConfig, ParameterCount
from maquette.model.experts_config import ExpertSettings

if TYPE_CHECKING:
    from torch import nn

    from maquette.model.custom_counts import Description

ACTIVATIONS = ("swiglu", "gelu", "relu2")

FULL, SLIDING = "full_attention", "sliding_attention"
"""Kinds of a layer's attention, as Hugging Face calls them."""

_LATER = ("sliding_window", "layer_types")
"""Fields that older runs, whose fingerprints cover their architecture, did not have: described where they are set."""


@dataclass(frozen=True)
class TransformerConfig(CoreConfig):
    """The shape of one transformer. Fields left None take their usual value; read them through the properties.

    `attention_bias` gives biases to the query, key and value projections alone (Qwen2) and follows `bias` by default.
    `sliding_window`: how many tokens back, its own included, each sees in layers of sliding attention: in all of them,
    or in those that `layer_types` says, which is repeated over the layers.
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
    attention: str | None = None
    sliding_window: int | None = None
    layer_types: tuple[str, ...] | None = None
    kind: ClassVar[str] = "transformer"

    def __post_init__(self) -> None:
        self.require_positive(
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"
        )
        self.require_positive("num_key_value_heads", "head_dim", "intermediate_size", "logit_softcap")
        for name, known in (("normalization", ("rmsnorm", "layernorm")), ("positions", ("rotary", "learned"))):
            if getattr(self, name) not in known:
                raise unknown_choice(name, getattr(self, name), known)
        if self.activation not in ACTIVATIONS and not is_dotted(self.activation):
            raise unknown_choice("activation", self.activation, ACTIVATIONS, own=True)
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
        _check_dropout(self.dropout)
        self._check_windows()

    def _check_windows(self) -> None:
        self.require_positive("sliding_window")
        if self.layer_types is not None:
            object.__setattr__(self, "layer_types", tuple(self.layer_types))  # JSON and YAML have lists
        for layer_type in self.layer_types or ():
            if layer_type not in (FULL, SLIDING):
                raise unknown_choice("layer_types", layer_type, (FULL, SLIDING))
        if SLIDING in (self.layer_types or ()) and self.sliding_window is None:
            raise ConfigError(f"layer_types has {SLIDING}, but no sliding_window.", "Set sliding_window to its tokens.")
        if self.attention is not None and any(self.windows):
            raise ConfigError(
                f"sliding_window={self.sliding_window} means nothing to the attention layer {self.attention}.",
                "Leave sliding_window out, or the attention layer.",
            )

    @property
    def all_layer_types(self) -> list[str]:
        """The kind of each layer's attention."""
        pattern = self.layer_types or (FULL if self.sliding_window is None else SLIDING,)
        return [pattern[layer % len(pattern)] for layer in range(self.num_hidden_layers)]

    @property
    def windows(self) -> tuple[int | None, ...]:
        """How many tokens each layer sees, a token's own included; None: all."""
        return tuple(self.sliding_window if layer == SLIDING else None for layer in self.all_layer_types)

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
        return 32 * math.ceil(8 * self.hidden_size / 3 / 32) if self.is_gated else 4 * self.hidden_size

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward has a gate beside what goes up."""
        return is_gated(self.activation)

    @property
    def feed_forward_weights(self) -> int:
        """Entries of the feed-forward matrices of one layer that a token meets."""
        return (3 if self.is_gated else 2) * self.hidden_size * self.inner_width

    @property
    def query_key_value_bias(self) -> bool:
        """Whether the query, key and value projections have biases."""
        return self.bias if self.attention_bias is None else self.attention_bias

    @property
    def own_code(self) -> tuple[str, ...]:
        return tuple(name for name in (self.activation, self.attention) if name is not None and is_dotted(name))

    @property
    def description(self) -> str:
        return ", ".join(("transformer", self.activation, *([self.attention] if self.attention else [])))

    @property
    def numbers_per_token(self) -> int:
        # In each block some eight vectors as wide as the model and three as wide as the feed-forward.
        return self.num_hidden_layers * (8 * self.hidden_size + 3 * self.inner_width)

    def parameters(self) -> ParameterCount:
        return self._counted(_transformer_parameters(self))

    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        feed_forward = 2 * tokens * self.num_hidden_layers * self.feed_forward_weights
        if self.attention is not None:
            from maquette.model.custom_counts import attention_flops

            flops = attention_flops(self, context)
            weights, activations = (
                self.num_hidden_layers * tokens * count // context for count in (flops.weights, flops.activations)
            )
            return feed_forward + weights, activations
        seen = sum(min(context, window or context) for window in self.windows)
        scores_and_sums = 2 * 2 * seen * self.num_attention_heads * self.width_of_head
        matrices = 2 * tokens * self.num_hidden_layers * _attention_weights(self)
        return feed_forward + matrices, tokens * scores_and_sums


@dataclass(frozen=True)
class MixtureOfExpertsConfig(ExpertSettings, TransformerConfig):
    """The shape of a transformer with experts (experts.py) in place of each feed-forward."""

    kind: ClassVar[str] = "moe"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_experts(activation=self.activation, bias=self.bias)

    @property
    def feed_forward_weights(self) -> int:
        return self.active_experts * 3 * self.hidden_size * self.inner_width + self.num_experts * self.hidden_size

    @property
    def description(self) -> str:
        return f"{super().description}, {self.num_experts} experts"

    @property
    def numbers_per_token(self) -> int:
        experts = self.active_experts * (2 * self.hidden_size + 3 * self.inner_width)  # a vector goes in, one comes out
        return self.num_hidden_layers * (8 * self.hidden_size + experts + 2 * self.num_experts)

    def parameters(self) -> ParameterCount:
        idle = self.idle_experts * 3 * self.hidden_size * self.inner_width
        return dataclasses.replace(super().parameters(), inactive=self.num_hidden_layers * idle)


def is_gated(activation: str) -> bool:
    """Whether an activation's feed-forward has a gate: then it is 8/3 as wide as the model, otherwise four times."""
    if activation in ACTIVATIONS:
        return activation == "swiglu"
    from maquette.model.custom_parts import is_gated as own_is_gated

    return own_is_gated(activation)


@dataclass(frozen=True)
class LSTMConfig(CoreConfig):
    """The shape of the recurrent baseline: as many channels in embedding, state and output."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False
    logit_softcap: float | None = None
    dropout: float = 0.0
    kind: ClassVar[str] = "lstm"

    def __post_init__(self) -> None:
        self.require_positive(
            "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "logit_softcap"
        )
        _check_dropout(self.dropout)

    @property
    def description(self) -> str:
        return "lstm"

    @property
    def numbers_per_token(self) -> int:
        return self.num_hidden_layers * 32 * self.hidden_size  # four gates and two states, before and after

    @property
    def lr_multiplier(self) -> float:
        """At 22k parameters and 1e11 FLOPs the loss was 5.45, 5.07, 4.93, 4.87 and 5.12 at 1, 2, 4, 8 and 16 times a
        transformer's rate; at 8 times the IsoFLOP curves of 3e10 to 1e12 have their minima inside."""
        return 8.0

    @property
    def opens_in_transformers(self) -> bool:
        return False

    def parameters(self) -> ParameterCount:
        # Four gates, each with a matrix from below, one from the step before, and PyTorch's two biases.
        layer = 4 * (2 * self.hidden_size * self.hidden_size + 2 * self.hidden_size)
        return self._counted(self.num_hidden_layers * layer)

    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        return 2 * tokens * self.num_hidden_layers * 8 * self.hidden_size**2, 0


@dataclass(frozen=True)
class CustomConfig(CoreConfig):
    """A core of a user's (`custom_parts.CoreModule`): `target` is called with the sizes and `settings`. What it is
    follows from building it on the meta device."""

    target: str
    vocab_size: int
    size: int
    max_position_embeddings: int = 256
    tie_word_embeddings: bool = False
    logit_softcap: float | None = None
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    kind: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        self.require_positive("vocab_size", "size", "max_position_embeddings", "logit_softcap")
        try:
            json.dumps(self.settings)
        except TypeError as error:
            raise ConfigError(f"The settings of {self.target} are not plain values: {error}.") from None

    @property
    def hidden_size(self) -> int:
        return self._known.hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Those of its longest `nn.ModuleList` or `nn.Sequential`; 1 where it has none."""
        return self._known.num_hidden_layers

    @property
    def description(self) -> str:
        return self.target

    @property
    def numbers_per_token(self) -> int:
        # As a transformer: some sixteen numbers a channel for a layer's twelve weights a channel squared.
        return 2 * self._known.parameters[1] // self.hidden_size

    @property
    def lr_multiplier(self) -> float:
        return self._known.lr_multiplier

    @property
    def own_code(self) -> tuple[str, ...]:
        return (self.target,)

    def parameters(self) -> ParameterCount:
        return ParameterCount(*self._known.parameters)

    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        from maquette.model.custom_counts import flops_of_sequence

        flops = flops_of_sequence(self, context)
        return tokens * flops.weights // context, tokens * flops.activations // context

    @property
    def _known(self) -> "Description":
        from maquette.model.custom_counts import describe

        return describe(self)


def _check_dropout(dropout: float) -> None:
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"dropout={dropout} is out of range.", "Allowed: at least 0 and below 1.")


KINDS: dict[str, Any] = {
    config.kind: config for config in (TransformerConfig, MixtureOfExpertsConfig, LSTMConfig, CustomConfig)
}
"""Configurations by the name that stands in files; a user's architectures are all `custom`."""


def _transformer_parameters(config: TransformerConfig) -> int:
    queries = config.num_attention_heads * config.width_of_head
    key_values = config.key_value_heads * config.width_of_head
    norm = config.hidden_size * (2 if config.normalization == "layernorm" and config.bias else 1)
    layer = config.feed_forward_weights + 2 * norm
    if config.bias:
        layer += config.inner_width * (2 if config.is_gated else 1) + config.hidden_size
    if config.activation not in ACTIVATIONS:
        from maquette.model.custom_counts import activation_parameters

        layer += activation_parameters(config)
    if config.attention is not None:
        from maquette.model.custom_counts import attention_parameters

        layer += attention_parameters(config)
    else:
        layer += _attention_weights(config)
        layer += queries + 2 * key_values if config.query_key_value_bias else 0
        layer += config.hidden_size if config.bias else 0  # of the attention's output
        layer += 2 * config.width_of_head if config.qk_norm else 0
    core = config.num_hidden_layers * layer + norm
    if config.positions == "learned":
        core += config.max_position_embeddings * config.hidden_size
    if config.token_shift:
        core += config.hidden_size
    return core


def _attention_weights(config: TransformerConfig) -> int:
    """Entries of the query, key, value and output matrices of one layer."""
    return 2 * config.hidden_size * config.width_of_head * (config.num_attention_heads + config.key_value_heads)


def describe_architecture(config: CoreConfig) -> dict[str, Any]:
    """Its kind and every field, as plain containers."""
    fields = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
        if value is not None or name not in _LATER
    }
    return {"kind": config.kind, **fields}


def read_architecture(described: Mapping[str, Any]) -> CoreConfig:
    """What `describe_architecture` wrote. Raises `StageError` for a kind or a field that this version does not know."""
    values = dict(described)
    kind = values.pop("kind", "transformer")
    try:
        config: CoreConfig = KINDS[kind](**values)
    except (KeyError, TypeError) as error:
        raise StageError(f"An architecture that this version does not know: kind {kind!r} ({error}).") from None
    return config


def describe_model(model: "nn.Module") -> dict[str, Any]:
    """Of a model that is there already: its shape alone."""
    return {"architecture": describe_architecture(model.config)}  # type: ignore[arg-type]
