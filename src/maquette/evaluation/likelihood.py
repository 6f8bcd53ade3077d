"""How well a model predicts held-out documents: perplexity by token and word, bits per byte, and its calibration.

A document longer than the model's context is read in windows. Each adds `stride` tokens, predicted from as much before
them as fits: a small stride costs more and gives every token a long past. Words are runs between white space.

What may be compared: losses and perplexities by token only between models with one tokenizer, bits per byte between
all.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts import ConfigError, StageError
from maquette.evaluation.questions import Pair
from maquette.model.scoring import Continuation, score_continuations
from maquette.statistics import IntervalEstimate, bootstrap

if TYPE_CHECKING:
    from maquette.model import LanguageModel
    from maquette.text import Tokenizer

BINS = 10
"""Of the likeliest token's probability, each a tenth wide."""


@dataclass(frozen=True)
class DocumentLikelihood:
    """`nats` for all of a document's `tokens`, `words` and `bytes`; `bins` (10, 3): how many predictions had their
    likeliest token's probability there, the sum of that, and how often that token came."""

    id: str
    domain: str
    nats: float
    tokens: int
    words: int
    bytes: int
    bins: tuple[tuple[float, float, float], ...]


def windows(tokens: Sequence[int], context: int, stride: int) -> list[Pair]:
    """Contexts and the tokens predicted from them, which together are all `tokens` but the first, each once.

    Raises `ConfigError` where the stride leaves tokens out.
    """
    if not 1 <= stride <= context:
        raise ConfigError(f"stride={stride} is out of range.", f"Allowed: 1 to the model's context, {context}.")
    pairs = []
    start = 1
    while start < len(tokens):
        end = min(len(tokens), context + 1 if start == 1 else start + stride)
        pairs.append((list(tokens[max(0, end - context - 1) : start]), list(tokens[start:end])))
        start = end
    return pairs


def score_windows(
    model: "LanguageModel", texts: Sequence[Sequence[int]], stride: int | None = None, *, batch_size_tokens: int
) -> Iterator[tuple[int, Continuation]]:
    """`(number, score)` of every window of each of the `texts`; `stride`: by default half the model's context."""
    context = model.config.max_position_embeddings
    spans = [windows(tokens, context, stride or max(1, context // 2)) for tokens in texts]
    owner = [number for number, pairs in enumerate(spans) for _ in pairs]
    pairs = [pair for one in spans for pair in one]
    yield from zip(owner, score_continuations(model, pairs, batch_size_tokens=batch_size_tokens), strict=True)


def measure(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    documents: Sequence[tuple[str, str, str]],
    *,
    stride: int | None = None,
    batch_size_tokens: int = 8192,
) -> list[DocumentLikelihood]:
    """The likelihood of each (id, domain, text). Raises `StageError` for a document that is empty."""
    begin = tokenizer.document_id
    if begin is None:
        raise StageError("The tokenizer has no token that begins a document.", "Add bos_token to its settings.")
    encoded = tokenizer.encode_batch([text for _, _, text in documents])
    for (name, _, _), tokens in zip(documents, encoded, strict=True):
        if not tokens:
            raise StageError(f"The document {name} is empty.", "Leave it out.")
    nats = np.zeros(len(documents))
    bins = np.zeros((len(documents), BINS, 3))
    texts = [[begin, *tokens] for tokens in encoded]
    for number, score in score_windows(model, texts, stride, batch_size_tokens=batch_size_tokens):
        nats[number] -= score.log_prob
        confidence = np.exp(score.best_log_probs)
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        right = score.log_probs >= score.best_log_probs
        for column, weights in enumerate((None, confidence, right)):
            bins[number, :, column] += np.bincount(place, weights, minlength=BINS)
    return [
        DocumentLikelihood(
            name, domain, float(nats[number]), len(encoded[number]), max(1, len(text.split())),
            len(text.encode("utf-8", "surrogatepass")), tuple(tuple(row) for row in bins[number].tolist()),
        )
        for number, (name, domain, text) in enumerate(documents)
    ]  # fmt: skip


@dataclass(frozen=True)
class LikelihoodSummary:
    """Over the documents of a domain: perplexities (1 to the vocabulary's size, by token), `bits_per_byte`, and the
    expected calibration error of the likeliest next token (Naeini et al. 2015): 0 for a model that is right as often
    as it is sure."""

    documents: int
    tokens: int
    bytes: int
    perplexity: IntervalEstimate
    word_perplexity: IntervalEstimate
    bits_per_byte: IntervalEstimate
    calibration_error: float
    bins: list[list[float]]


def summarize(
    documents: Sequence[DocumentLikelihood], *, resamples: int = 2000, level: float = 0.9, seed: int = 0
) -> LikelihoodSummary:
    """Documents together: a ratio of sums, so that long documents count as long; intervals draw documents again."""
    nats = np.array([document.nats for document in documents])
    units = {
        name: np.array([getattr(document, name) for document in documents], float)
        for name in ("tokens", "words", "bytes")
    }

    def rate(unit: str) -> tuple[float, float, float]:
        if len(documents) < 2:
            value = float(nats.sum() / units[unit].sum())
            return value, math.nan, math.nan
        estimate = bootstrap(
            lambda counts: (counts @ nats) / (counts @ units[unit]), len(nats), resamples=resamples, level=level,
            seed=seed,
        )  # fmt: skip
        return estimate.value, estimate.interval.low, estimate.interval.high

    bins = np.sum([document.bins for document in documents], axis=0)
    return LikelihoodSummary(
        len(documents),
        int(units["tokens"].sum()),
        int(units["bytes"].sum()),
        IntervalEstimate(*(math.exp(min(value, 700)) for value in rate("tokens"))),
        IntervalEstimate(*(math.exp(min(value, 700)) for value in rate("words"))),
        IntervalEstimate(*(value / math.log(2) for value in rate("bytes"))),
        calibration_error(bins),
        bins.tolist(),
    )


def calibration_error(bins: NDArray[Any]) -> float:
    """Mean over predictions of |how sure - how often right|, by bin: `bins` (b, 3) as of `DocumentLikelihood`."""
    total = bins[:, 0].sum()
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / total) if total else math.nan


NOT_A_LANGUAGE_MODEL = (
    "This model was trained by reinforcement from preferences ({objective}). It is no longer a calibrated model of "
    "text: its perplexity may not be compared with that of a pretrained or fine-tuned model. Its expected calibration "
    "error is {error:.3f}."
)
PER_BYTE_ONLY = (
    "Perplexities by token depend on the tokenizer: compare them only between models with this one ({digest}). "
    "Bits per byte can be compared between all models on the same text."
)
