"""The shape of a model, and what it costs: parameters and FLOPs, counted exactly. Free of torch.

`CoreConfig` is what the rest of the package knows of an architecture: the transformer, the LSTM and a user's own go
through it alike. A user's code (custom.py, custom_parts.py) is imported only where a config names some.
"""

import abc
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import is_dotted, plain_arguments, setting, unknown_choice
from maquette.artifacts.targets import check_target

if TYPE_CHECKING:
    from maquette.model.custom import Description
    from maquette.model.heads import Core

ACTIVATIONS = ("swiglu", "gelu", "relu2")


@dataclass
class ModelConfig:
    """`conf/model/*.yaml`: the architecture. Sizes left null come from the recipe (`size=`)."""

    kind: str = setting("transformer", "architecture", choices=("transformer", "lstm"), own=True)
    settings: dict[str, Any] = setting(dict, "of a kind of your own: what it is built with besides its size")
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
    activation: str = setting("swiglu", "feed-forward", choices=ACTIVATIONS, own=True)
    attention: str | None = setting(None, "an attention layer of your own, as package.module.Class")
    qk_norm: bool = setting(False, "normalise queries and keys")
    tie_word_embeddings: bool = setting(False, "the head shares the embedding's matrix")
    bias: bool = setting(False, "biases in linear layers")
    logit_softcap: float | None = setting(None, "logits are squashed to +- this by tanh", minimum=1.0)
    token_shift: bool = setting(True, "each embedding takes a learned share of the previous token's")
    dropout: float = setting(0.0, "dropout in embeddings, attention and feed-forward", minimum=0.0, maximum=0.9)

    def validate(self) -> None:
        """Raises `ConfigError` for a user's part that is not there, or settings that mean nothing to it."""
        for name in ("kind", "activation", "attention"):
            value = getattr(self, name)
            if value is not None and is_dotted(value):
                check_target(value, key=f"model.{name}")
        if self.attention is not None and not is_dotted(self.attention):
            raise ConfigError(
                f"model.attention={self.attention} is not the name of a class.",
                "Write it as package.module.Class, or leave it out for the usual attention.",
            )
        if not is_dotted(self.kind):
            if self.settings:
                raise ConfigError("model.settings belong to a model.kind of your own.", "Leave them out.")
            return
        usual = ModelConfig(kind=self.kind, settings=self.settings)
        meant = ("kind", "settings", "tie_word_embeddings", "logit_softcap")
        for name, value in vars(self).items():
            if name not in meant and value != getattr(usual, name):
                raise ConfigError(
                    f"model.{name} means nothing to model.kind={self.kind}.",
                    f"Give it as model.settings.{name}, if it takes it.",
                )

    @classmethod
    def of_target(cls, node: Mapping[str, Any]) -> "ModelConfig":
        """The settings that a node with a `_target_` of a user's means; its other keys are what it is built with."""
        own = plain_arguments(node)
        shared = {key: own.pop(key) for key in ("tie_word_embeddings", "logit_softcap") if key in own}
        return cls(kind=str(node["_target_"]), settings=own, **shared)

    def foreign_node(self) -> dict[str, Any] | None:
        """The node with a `_target_` of a user's that it means; None of ours."""
        return {"_target_": self.kind, **self.settings} if is_dotted(self.kind) else None

    @property
    def own_code(self) -> tuple[str, ...]:
        """Dotted names of the user's parts."""
        return tuple(name for name in (self.kind, self.activation, self.attention) if name and is_dotted(name))


@dataclass(frozen=True)
class CoreConfig(abc.ABC):
    """What is known of any core from its configuration: a frozen dataclass whose fields say all that the core is."""

    kind: ClassVar[str]
    if TYPE_CHECKING:  # each a field of most of them

        @property
        def vocab_size(self) -> int: ...
        @property
        def hidden_size(self) -> int: ...
        @property
        def num_hidden_layers(self) -> int: ...
        @property
        def max_position_embeddings(self) -> int: ...
        @property
        def tie_word_embeddings(self) -> bool: ...
        @property
        def logit_softcap(self) -> float | None: ...

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """What sort of model it is, in words: models of one description train at comparable speeds."""

    @abc.abstractmethod
    def parameters(self) -> "ParameterCount":
        """Exact numbers of parameters, with the head."""

    @abc.abstractmethod
    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        """FLOPs of the core's forward pass over `tokens` in sequences of `context`: of products with its matrices, and
        of queries, keys and values with one another."""

    @abc.abstractmethod
    def build(self, seed: int) -> "Core":
        """The core itself, with the initial weights of `seed`."""

    @property
    @abc.abstractmethod
    def numbers_per_token(self) -> int:
        """Roughly how many numbers a token leaves in the core for the backward pass."""

    @property
    def lr_multiplier(self) -> float:
        """Its best learning rate over that of a transformer as wide."""
        return 1.0

    @property
    def own_code(self) -> tuple[str, ...]:
        """Dotted names of a user's parts in it."""
        return ()

    @property
    def opens_in_transformers(self) -> bool:
        """Whether its export is a model that `transformers` can build."""
        return not self.own_code

    def with_context(self, length: int) -> "CoreConfig":
        """The same for sequences of `length` tokens."""
        changes: dict[str, Any] = {"max_position_embeddings": length}
        return dataclasses.replace(self, **changes)

    def _matrix(self) -> int:
        """Entries of an embedding or head."""
        return self.vocab_size * self.hidden_size

    def _counted(self, core: int) -> "ParameterCount":
        embedding = 0 if self.tie_word_embeddings else self._matrix()
        return ParameterCount(embedding=embedding, core=core, head=self._matrix())


@dataclass(frozen=True)
class TransformerConfig(CoreConfig):
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
    attention: str | None = None
    kind: ClassVar[str] = "transformer"

    def __post_init__(self) -> None:
        _require_positive(
            self, "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"
        )
        _require_positive(self, "num_key_value_heads", "head_dim", "intermediate_size", "logit_softcap")
        _require_known(self, "normalization", ("rmsnorm", "layernorm"))
        _require_known(self, "positions", ("rotary", "learned"))
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
        return 32 * math.ceil(8 * self.hidden_size / 3 / 32) if self.is_gated else 4 * self.hidden_size

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward has a gate beside what goes up."""
        return is_gated(self.activation)

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

    def parameters(self) -> "ParameterCount":
        return self._counted(_transformer_parameters(self))

    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        feed_forward = 2 * tokens * self.num_hidden_layers * _feed_forward_weights(self)
        if self.attention is not None:
            from maquette.model.custom_parts import attention_flops

            found = attention_flops(self, context)
            weights, activations = (
                self.num_hidden_layers * tokens * count // context for count in (found.weights, found.activations)
            )
            return feed_forward + weights, activations
        scores_and_sums = 2 * 2 * context * self.num_attention_heads * self.width_of_head
        matrices = 2 * tokens * self.num_hidden_layers * _attention_weights(self)
        return feed_forward + matrices, tokens * self.num_hidden_layers * scores_and_sums

    def build(self, seed: int) -> "Core":
        from maquette.model.transformer import Transformer

        return Transformer(self, seed=seed)


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
        _require_positive(
            self, "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings", "logit_softcap"
        )
        _require_dropout(self)

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

    def parameters(self) -> "ParameterCount":
        # Four gates, each with a matrix from below, one from the step before, and PyTorch's two biases.
        layer = 4 * (2 * self.hidden_size * self.hidden_size + 2 * self.hidden_size)
        return self._counted(self.num_hidden_layers * layer)

    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        return 2 * tokens * self.num_hidden_layers * 8 * self.hidden_size**2, 0

    def build(self, seed: int) -> "Core":
        from maquette.model.lstm import LSTM

        return LSTM(self, seed=seed)


@dataclass(frozen=True)
class CustomConfig(CoreConfig):
    """A core of a user's (`protocols.CoreModule`): `target` is called with the sizes and `settings`. What it is
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
        _require_positive(self, "vocab_size", "size", "max_position_embeddings", "logit_softcap")
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
        return 2 * self._known.parameters.core // self.hidden_size

    @property
    def lr_multiplier(self) -> float:
        return self._known.lr_multiplier

    @property
    def own_code(self) -> tuple[str, ...]:
        return (self.target,)

    def parameters(self) -> "ParameterCount":
        return self._known.parameters

    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        from maquette.model.custom import flops_of_sequence

        found = flops_of_sequence(self, context)
        return tokens * found.weights // context, tokens * found.activations // context

    def build(self, seed: int) -> "Core":
        from maquette.model.custom import CustomCore

        return CustomCore(self, seed=seed)

    @property
    def _known(self) -> "Description":
        from maquette.model.custom import describe

        return describe(self)


def _require_positive(config: CoreConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value <= 0:
            raise ConfigError(f"{name}={value} is out of range.", "Allowed: above 0.")


def _require_known(config: CoreConfig, name: str, known: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in known:
        raise ConfigError(f"{name}={value} is not known.", f"Allowed: {', '.join(known)}.")


def _require_dropout(config: TransformerConfig | LSTMConfig) -> None:
    if not 0.0 <= config.dropout < 1.0:
        raise ConfigError(f"dropout={config.dropout} is out of range.", "Allowed: at least 0 and below 1.")


KINDS: dict[str, Any] = {config.kind: config for config in (TransformerConfig, LSTMConfig, CustomConfig)}
"""Configurations by the name that stands in files; a user's architectures are all `custom`."""


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
    return config.parameters()


def _transformer_parameters(config: TransformerConfig) -> int:
    queries = config.num_attention_heads * config.width_of_head
    key_values = config.key_value_heads * config.width_of_head
    norm = config.hidden_size * (2 if config.normalization == "layernorm" and config.bias else 1)
    layer = _feed_forward_weights(config) + 2 * norm
    if config.bias:
        layer += config.inner_width * (2 if config.is_gated else 1) + config.hidden_size
    if config.activation not in ACTIVATIONS:
        from maquette.model.custom_parts import activation_parameters

        layer += activation_parameters(config)
    if config.attention is not None:
        from maquette.model.custom_parts import attention_parameters

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


def _feed_forward_weights(config: TransformerConfig) -> int:
    """Entries of the feed-forward matrices of one layer."""
    return (3 if config.is_gated else 2) * config.hidden_size * config.inner_width


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
    core, attention = config.forward_flops(tokens, context)
    return FlopCount(core=core, attention=attention, head=2 * tokens * config.vocab_size * config.hidden_size)


def training_flops(config: CoreConfig, tokens: int, context: int) -> FlopCount:
    """FLOPs of forward and backward over `tokens` tokens: each product of the forward pass needs two in the backward
    pass, one for the gradient of either factor. For the rest see `forward_flops`."""
    forward = forward_flops(config, tokens, context)
    return FlopCount(core=3 * forward.core, attention=3 * forward.attention, head=3 * forward.head)


def kaplan_compute(config: CoreConfig, tokens: int) -> int:
    """Training FLOPs as Kaplan et al. 2020 count them (section 2.1): 6 N D with N the parameters of the core alone."""
    return 6 * count_parameters(config).core * tokens
