"""What the same validation text costs models that need no training: what a language model has to beat."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maquette.artifacts.files import write_json
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import progress, say
from maquette.data import MixtureOrder, TokenShards
from maquette.data.config import MixtureConfig
from maquette.data.token_artifacts import TokensResult
from maquette.model.ngrams import KneserNey, Tokens
from maquette.text import Tokenizer
from maquette.training.record import RunRecord

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


def stored_baselines(
    record: RunRecord,
    data: TokensResult,
    mixture: MixtureConfig,
    *,
    validation_tokens: int,
    outputs: str,
    force: bool = False,
) -> Path:
    """The artifact with the `weights` of the domains and the baselines' `scores` on a run's validation text, after
    exactly the tokens that it trained on: found or made, as `scores.json`."""
    context, tokens = record.spec.sequence_length, record.spec.tokens

    def make(folder: Path) -> dict[str, Any]:
        tokenizer = Tokenizer.load(data.tokenizer)
        with progress("counting n-grams", 3, unit="passes") as advance:
            shards = TokenShards(data.folder, tokenizer.digest)
            order = MixtureOrder(
                mixture, shards.tokens("train"), context=context, token_budget=tokens, seed=record.spec.seed
            )
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
        facts = {"weights": order.phases[0].weights, "scores": [asdict(score) for score in scores]}
        write_json(folder / "scores.json", facts)
        return facts

    return build(
        "baselines",
        Path(outputs) / "artifacts",
        name=None,
        label=record.name.rpartition("-")[0],
        config={"validation_tokens": validation_tokens},
        inputs={"run": record.spec.fingerprint, **record.spec.digests},
        make=make,
        force=force,
        say=say,
    )


def training_sequences(shards: TokenShards, order: MixtureOrder, count: int) -> npt.NDArray[np.integer]:
    """The first `count` sequences of the order, `(count, context + 1)`, each with its last target."""
    rows = np.empty((count, order.context + 1), np.uint32)
    places = order.locate(np.arange(count))
    for row, domain, start in zip(rows, places.domains.tolist(), places.start_tokens.tolist(), strict=True):
        row[:] = shards.read(order.domains[domain], "train", start, order.context + 1)
    return rows


def validation_sequences(shards: TokenShards, *, context: int, tokens: int) -> dict[str, npt.NDArray[np.integer]]:
    """Each domain's validation sequences, `(B, context + 1)`; domains without any are left out."""
    from maquette.data import validation_batches  # of torch, which a finished artifact needs not

    sequences = {domain: validation_batches(shards, domain, context, tokens, 1024) for domain in shards.domains}
    return {
        domain: np.concatenate([batch.tokens.numpy() for batch in batches])
        for domain, batches in sequences.items()
        if batches
    }
