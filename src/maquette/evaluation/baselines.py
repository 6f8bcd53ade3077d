"""What the same validation text costs models that need no training: the floor that a language model has to leave."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from maquette.evaluation.ngrams import KneserNey, Tokens

UNIFORM, UNIGRAM, NGRAM = "uniform bytes", "unigram", "Kneser-Ney 5-gram"


@dataclass(frozen=True)
class BaselineScore:
    """One baseline on one domain: `loss` in nats per token, `bits_per_byte` of text."""

    baseline: str
    domain: str
    loss: float
    bits_per_byte: float


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """A total of `nats` over `num_bytes` of text, in bits per byte: comparable between tokenizers."""
    return nats / (math.log(2) * num_bytes)


def score_baselines(
    training: Tokens,
    validation: Mapping[str, npt.NDArray[np.integer]],
    *,
    vocabulary_size: int,
    byte_lengths: npt.NDArray[np.integer],
    advance: Callable[[float], None] = lambda _: None,
) -> list[BaselineScore]:
    """Scores a uniform model of bytes, a unigram and an interpolated modified Kneser-Ney 5-gram model of tokens.

    `training` is exactly what the language model was trained on; `validation` maps a domain to `(B, T + 1)` tokens, of
    which the first of each row is context only, as for the language model; `byte_lengths (vocabulary_size,)` is the
    text that each token stands for. `advance(1)` is called after each model is fitted (twice).
    """
    scores = []
    for domain, tokens in validation.items():
        num_tokens, num_bytes = tokens[:, 1:].size, int(byte_lengths[tokens[:, 1:]].sum())
        scores.append(BaselineScore(UNIFORM, domain, 8 * math.log(2) * num_bytes / num_tokens, 8.0))
    for name, order in ((UNIGRAM, 1), (NGRAM, 5)):
        model = KneserNey.fit(training, vocabulary_size, order=order)
        advance(1)
        for domain, tokens in validation.items():
            nats = -model.log_probabilities(tokens)
            num_bytes = int(byte_lengths[tokens[:, 1:]].sum())
            scores.append(BaselineScore(name, domain, float(nats.mean()), bits_per_byte(float(nats.sum()), num_bytes)))
    return scores
