"""A core that a user wrote, behind the interface of ours; see `custom_parts.CoreModule`."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from maquette.artifacts import ConfigError
from maquette.artifacts.targets import users_code
from maquette.model.architecture import CustomConfig
from maquette.model.attention import PackedSequences
from maquette.model.cache import RereadingCache
from maquette.model.custom_parts import embedding_of, head_of, make_core


class CustomCore(nn.Module):
    """`forward(tokens (B, T)) -> hidden (B, T, D)` of a user's module. Starts from the weights that `seed` gives."""

    keeps_initialization = True

    def __init__(self, config: CustomConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.module = make_core(config)
        self._arguments = _arguments_of(self.module)

    @property
    def embedding(self) -> nn.Embedding | None:
        return embedding_of(self.module, self.config)

    @property
    def own_head(self) -> Tensor | None:
        """`(V, D)`, where the module brings the matrix of its head or shares the embedding's."""
        return head_of(self.module, self.config)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Any | None = None,
        packed: PackedSequences | None = None,
    ) -> Tensor:
        """`tokens (B, T)` int64 -> `(B, T, D)`; the rest as for `Transformer.forward`. `packed` stays here."""
        if isinstance(cache, RereadingCache):
            return cache.read(self, tokens)
        given = {"positions": positions, "segments": segments, "cache": cache}
        if segments is not None and "segments" not in self._arguments:
            raise ConfigError(
                f"{self.config.target} takes no segments: it can't keep packed documents, or prompts of different "
                "lengths, apart.",
                "Let its forward take segments=None, or use data.document_masking=false and one prompt at a time.",
            )
        with users_code(self.config.target):
            return self.module(tokens, **{name: value for name, value in given.items() if name in self._arguments})

    def new_cache(self, batch: int, length: int, starts: Tensor | None) -> Any:
        """The module's own cache, if it has one."""
        make = getattr(self.module, "new_cache", None)
        if callable(make):
            with users_code(f"{self.config.target}.new_cache"):
                return make(batch, length, starts=starts)
        return None

    def change_context(self, *, max_position_embeddings: int | None = None, rope_theta: float | None = None) -> None:
        """A user's module is what it was built as. Raises `ConfigError` for longer sequences or rotary positions."""
        if rope_theta is not None or (max_position_embeddings or 0) > self.config.max_position_embeddings:
            raise ConfigError(
                f"{self.config.target} was built for {self.config.max_position_embeddings} tokens.",
                "Train it from the beginning with a longer data.sequence_length.",
            )


def _arguments_of(module: nn.Module) -> frozenset[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return frozenset(("positions", "segments", "cache"))
    return frozenset(parameter.name for parameter in parameters)
