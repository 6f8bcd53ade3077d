"""What stands on a core: logits over the vocabulary, or one number per position. Both load the same core's weights."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from maquette.model.attention import attention_dtype
from maquette.model.cache import Cache, new_cache
from maquette.model.core_config import CoreConfig
from maquette.model.custom import CustomCore
from maquette.model.initialization import initialize
from maquette.model.likelihoods import capped_logits
from maquette.model.linear import Linear
from maquette.model.lstm import LSTM
from maquette.model.transformer import Transformer

Core = Transformer | LSTM | CustomCore
Model = TypeVar("Model", "LanguageModel", "ScalarModel")


def build_core(config: CoreConfig, *, seed: int = 0) -> Core:
    """The core that a configuration describes, with the initial weights of `seed`."""
    kinds: dict[str, type[Core]] = {"transformer": Transformer, "moe": Transformer, "lstm": LSTM, "custom": CustomCore}
    return kinds[config.kind](config, seed=seed)  # type: ignore[arg-type]


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Without dropout within; afterwards the model is in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class LanguageModel(nn.Module):
    """`forward(tokens (B, T)) -> logits (B, T, V)`: what each token makes of the next.

    A tied model, or a user's core with a head of its own, has no matrix in `head`; `head_weight` is the one that is
    used in either case.
    """

    def __init__(self, config: CoreConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.core = build_core(config, seed=seed)
        self.head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if self.core.own_head is not None:
            self.head.register_parameter("weight", None)
        initialize(self.head, config, seed, prefix="head.")

    @property
    def config(self) -> CoreConfig:
        return self.core.config

    @property
    def head_weight(self) -> Tensor:
        """`(V, D)`"""
        if (own := self.core.own_head) is not None:
            return own
        adapter = getattr(self.head, "get_delta_weight", None)  # adapters.py, where target_modules names the head
        return self.head.weight if adapter is None else self.head.weight + adapter("default")

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """`tokens (B, T)` int64 -> logits `(B, T, V)`; the rest as for the core (`Transformer.forward`)."""
        return self.logits(self.core(tokens, positions=positions, segments=segments, cache=cache))

    def logits(self, hidden: Tensor) -> Tensor:
        """`hidden (..., D)` -> `(..., V)`, soft-capped where the configuration says so."""
        return capped_logits(hidden, self.head_weight, self.config.logit_softcap)

    def new_cache(self, batch: int, length: int, *, starts: Tensor | None = None) -> Cache:
        """An empty cache of this model's kind, on its device, in the number format it computes in."""
        weight = self.head_weight
        if isinstance(self.core, CustomCore) and (own := self.core.new_cache(batch, length, starts)) is not None:
            return own
        return new_cache(self.config, batch, length, weight.device, attention_dtype(weight), starts=starts)


@torch.no_grad()
def with_rows(model: Model, known: int, vocab_size: int, *, seed: int = 0) -> Model:
    """The model with at least `vocab_size` tokens, of which the first `known` are those that it was trained on.

    A new row of the embedding, and of the head, is the mean of the known ones plus N(0, 0.1 of their deviation): a new
    token is then about as likely as the average one, where a row of zeros can outweigh all others (Hewitt 2021,
    "Initializing New Word Embeddings for Pretrained Language Models").
    """
    state = model.state_dict()
    size = max(vocab_size, model.config.vocab_size)
    generator = torch.Generator().manual_seed(seed)
    for name in ("core.embedding.weight", "head.weight"):
        if name not in state:
            continue
        old = state[name][:known].float()
        noise = torch.randn(size - known, old.size(1), generator=generator)
        state[name] = torch.cat([old, old.mean(0) + 0.1 * old.std(0) * noise]).to(state[name].dtype)
    with torch.device("meta"):
        config: Any = model.config
        grown = type(model)(dataclasses.replace(config, vocab_size=size))
    grown.load_state_dict(state, assign=True)
    if isinstance(model, ScalarModel) and isinstance(grown, ScalarModel):
        grown.padding_id, grown.reads_rendering = model.padding_id, model.reads_rendering
    return grown.eval()


class ScalarModel(nn.Module):
    """`forward(tokens (B, T)) -> (B, T)`: one number per position; a reward model, or PPO's value function.

    `padding_id` and `reads_rendering` say where a reward model from elsewhere is read, as `transformers` and those who
    train with it do: at the last token that is not padding, of all that the chat template writes. One of ours is read
    at the end of turn.
    """

    padding_id: int | None = None
    reads_rendering = False

    def __init__(self, config: CoreConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.core = build_core(config, seed=seed)
        self.score = Linear(config.hidden_size, 1)
        initialize(self.score, config, seed, prefix="score.")

    @classmethod
    def from_language_model(cls, model: LanguageModel, *, seed: int = 0) -> "ScalarModel":
        """A scalar model with a copy of the language model's core, on its device and in its precision."""
        scalar = cls(model.config, seed=seed).to(model.head_weight.device, model.head_weight.dtype)
        scalar.core.load_state_dict(model.core.state_dict())
        return scalar

    @property
    def config(self) -> CoreConfig:
        return self.core.config

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """`tokens (B, T)` int64 -> `(B, T)`; the rest as for the core (`Transformer.forward`)."""
        return self.score(self.core(tokens, positions=positions, segments=segments, cache=cache)).squeeze(-1)
