"""What is known of any core from its configuration, and what it costs: parameters and FLOPs, counted exactly, by two
conventions that are never mixed. Free of torch.

`CoreConfig` is what the rest of the package knows of an architecture: the transformer, the LSTM and a user's own
(architecture.py) go through it alike. `N` and `C` of a law are by default core + head parameters and exact training
FLOPs; `kaplan_compute` is 6 N D with the core's parameters alone, to reproduce the literature.
"""

import abc
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from maquette.artifacts.errors import ConfigError


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by part. `core` is everything but the two vocabulary matrices. A tied matrix is counted once, as the
    head, where it is multiplied with: so `core + head`, the N of a law, means the same in tied and untied models.
    `core` are those that a token uses; `inactive` those of the experts that it does not go through."""

    embedding: int
    core: int
    head: int
    inactive: int = 0

    @property
    def active(self) -> int:
        return self.embedding + self.core + self.head

    @property
    def total(self) -> int:
        return self.active + self.inactive


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
    def parameters(self) -> ParameterCount:
        """Exact numbers of parameters, with the head."""

    @abc.abstractmethod
    def forward_flops(self, tokens: int, context: int) -> tuple[int, int]:
        """FLOPs of the core's forward pass over `tokens` in sequences of `context`: of products with its matrices, and
        of queries, keys and values with one another."""

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

    def require_positive(self, *names: str) -> None:
        """Raises `ConfigError` for a field that is set, and not above 0."""
        for name in names:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} is out of range.", "Allowed: above 0.")

    def _matrix(self) -> int:
        """Entries of an embedding or head."""
        return self.vocab_size * self.hidden_size

    def _counted(self, core: int) -> ParameterCount:
        embedding = 0 if self.tie_word_embeddings else self._matrix()
        return ParameterCount(embedding=embedding, core=core, head=self._matrix())


def count_parameters(config: CoreConfig) -> ParameterCount:
    """Exact numbers of parameters of `LanguageModel(config)`, from its shape alone."""
    return config.parameters()


def forward_flops(config: CoreConfig, tokens: int, context: int) -> FlopCount:
    """FLOPs of the matrix products of one forward pass over `tokens` tokens in sequences of `context`.

    Attention is counted by the convention of Hoffmann et al. 2022 (appendix F) and Chowdhery et al. 2022 (appendix B):
    every query meets all `context` keys, although a causal kernel may skip those ahead of it, or as many as its
    layer's window has. Norms, activations,
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
