"""What the same validation text costs models that need no training: what a language model has to beat."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maquette.data import MixtureOrder, TokenShards, validation_batches
from maquette.data.config import MixtureConfig
from maquette.model.ngrams import KneserNey, Tokens
from maquette.text import Tokenizer

UNIFORM, UNIGRAM, NGRAM = "uniform bytes", "unigram", "Kneser-Ney 5-gram"
ALL = "all"
"""The domain of scores over text mixed as in training."""


@dataclass(frozen=True)
class BaselineScore:
    """One baseline on one domain: `loss` in nats per token, `bits_per_byte` of text."""

    baseline: str
    domain: str
    loss: float
    bits_per_byte: float


def bits_per_byte(nats: float, num_bytes: float) -> float:
    """A total of `nats` over `num_bytes` of text, in bits per byte: comparable between tokenizers."""
    return nats / (math.log(2) * num_bytes)


def score_baselines(
    training: Tokens,
    validation: Mapping[str, npt.NDArray[np.integer]],
    *,
    vocab_size: int,
    byte_lengths: npt.NDArray[np.integer],
    weights: Mapping[str, float] | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> list[BaselineScore]:
    """Scores a uniform model of bytes, a unigram and an interpolated modified Kneser-Ney 5-gram model of tokens.

    `training` is exactly what the language model was trained on; `validation` maps a domain to `(B, T + 1)` tokens, of
    which the first of each row is context only, as for the language model; `byte_lengths (vocab_size,)` is the
    text that each token stands for. `weights`, the share of each domain in training, adds the score of text mixed so,
    as domain `ALL`. `advance(1)` is called after each of the two models that take time.
    """
    bytes_per_token = {domain: float(byte_lengths[tokens[:, 1:]].mean()) for domain, tokens in validation.items()}
    losses = {UNIFORM: {domain: 8 * math.log(2) * size for domain, size in bytes_per_token.items()}}
    for name, order in ((UNIGRAM, 1), (NGRAM, 5)):
        model = KneserNey.fit(training, vocab_size, order=order)
        losses[name] = {domain: -float(model.log_probabilities(rows).mean()) for domain, rows in validation.items()}
        advance(1)
    scores = []
    for name, by_domain in losses.items():
        for domain, loss in by_domain.items():
            scores.append(BaselineScore(name, domain, loss, bits_per_byte(loss, bytes_per_token[domain])))
        if weights is not None:
            total = sum(weights[domain] for domain in by_domain)
            loss = sum(weights[domain] * by_domain[domain] for domain in by_domain) / total
            size = sum(weights[domain] * bytes_per_token[domain] for domain in by_domain) / total
            scores.append(BaselineScore(name, ALL, loss, bits_per_byte(loss, size)))
    return scores


def baseline_facts(
    folder: Path,
    tokenizer: Tokenizer,
    mixture: MixtureConfig,
    *,
    context: int,
    tokens: int,
    seed: int,
    validation_tokens: int,
    advance: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """`weights` of the domains, and the baselines' `scores` after exactly the `tokens` that a run with these settings
    trains on. `folder`: the token shards; `advance(1)` is called three times."""
    shards = TokenShards(folder, tokenizer.digest)
    order = MixtureOrder(mixture, shards.tokens("train"), context=context, token_budget=tokens, seed=seed)
    training = training_sequences(shards, order, tokens // context)
    advance(1)
    scores = score_baselines(
        training,
        validation_sequences(shards, context=context, tokens=validation_tokens),
        vocab_size=tokenizer.vocab_size,
        byte_lengths=tokenizer.byte_lengths(),
        weights=order.phases[0].weights,
        advance=advance,
    )
    return {"weights": order.phases[0].weights, "scores": [asdict(score) for score in scores]}


def training_sequences(shards: TokenShards, order: MixtureOrder, count: int) -> npt.NDArray[np.integer]:
    """The first `count` sequences of the order, `(count, context + 1)`, each with its last target."""
    rows = np.empty((count, order.context + 1), np.uint32)
    places = order.locate(np.arange(count))
    for row, domain, start in zip(rows, places.domains.tolist(), places.start_tokens.tolist(), strict=True):
        row[:] = shards.read(order.domains[domain], "train", start, order.context + 1)
    return rows


def validation_sequences(shards: TokenShards, *, context: int, tokens: int) -> dict[str, npt.NDArray[np.integer]]:
    """Each domain's validation sequences, `(B, context + 1)`; domains without any are left out."""
    sequences = {domain: validation_batches(shards, domain, context, tokens, 1024) for domain in shards.domains}
    return {
        domain: np.concatenate([batch.tokens.numpy() for batch in batches])
        for domain, batches in sequences.items()
        if batches
    }
