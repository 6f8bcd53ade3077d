"""How likely a model finds sentences, and continuations of contexts: log-probabilities of their tokens.

A sentence is read as the beginning of a document: log P(tokens | <|document|>). Its end is not scored, so that a
sentence and a longer one that begins with it can be compared.

Continuations are what questions, windows of long texts and lm-evaluation-harness stand on. Notable:
- the head is applied only where a prediction is asked for, so a long context costs no `(B, T, V)` logits
- one-token continuations of one context (the letters of a question) are one row: the context is read once
- equal pairs are computed once; rows of like length go together, so that little is padded
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from maquette.artifacts import ConfigError, StageError
from maquette.model.heads import LanguageModel, evaluation_mode
from maquette.model.likelihoods import require_finite

if TYPE_CHECKING:
    from maquette.text import Tokenizer


@dataclass(frozen=True)
class SentenceScore:
    """`token_log_probs` in nats, one for each of `tokens`; `num_bytes` of UTF-8."""

    text: str
    tokens: tuple[int, ...]
    token_log_probs: tuple[float, ...]
    num_bytes: int

    @property
    def log_prob(self) -> float:
        """Log-probability of the sentence, in nats."""
        return math.fsum(self.token_log_probs)

    @property
    def per_token(self) -> float:
        """Mean log-probability of a token, in nats."""
        return self.log_prob / len(self.tokens)

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability of a token."""
        return math.exp(-self.per_token)

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of the sentence; comparable between tokenizers."""
        return -self.log_prob / (math.log(2) * self.num_bytes)

    def plain(self) -> dict[str, object]:
        """As JSON: log-probabilities in nats."""
        return {
            "sentence": self.text,
            "log_prob": self.log_prob,
            "log_prob_per_token": self.per_token,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            "tokens": len(self.tokens),
            "bytes": self.num_bytes,
            "token_ids": list(self.tokens),
            "token_log_probs": list(self.token_log_probs),
        }


def score_sentences(
    model: LanguageModel,
    tokenizer: "Tokenizer",
    sentences: Sequence[str],
    *,
    batch_size_tokens: int = 8192,
    advance: Callable[[float], None] = lambda amount: None,
) -> list[SentenceScore]:
    """Scores sentences as beginnings of documents; see `score_continuations`.

    Raises `ConfigError` for a sentence that is empty or longer than the model's context, `StageError` where the
    tokenizer has no token that begins a document.
    """
    document = tokenizer.document_id
    if document is None:
        raise StageError(
            "The tokenizer has no token that begins a document.",
            "Add bos_token to its tokenizer_config.json, so that the first token of a sentence can be scored.",
        )
    encoded = tokenizer.encode_batch(list(sentences))
    context = model.config.max_position_embeddings
    for number, (text, tokens) in enumerate(zip(sentences, encoded, strict=True), 1):
        if not tokens:
            raise ConfigError(f"Sentence {number} is empty.", "Give it some text, or leave it out.")
        if len(tokens) > context:
            raise ConfigError(
                f"Sentence {number} ({text[:40]!r}...) has {len(tokens)} tokens; the model reads {context}.",
                "Split it, or score it with a model of a longer context.",
            )
    pairs = [([document], tokens) for tokens in encoded]
    scores = score_continuations(model, pairs, batch_size_tokens=batch_size_tokens, advance=advance)
    return [
        SentenceScore(text, tuple(tokens), tuple(score.log_probs), len(text.encode("utf-8", "surrogatepass")))
        for text, tokens, score in zip(sentences, encoded, scores, strict=True)
    ]


_LOGITS = 2**22  # at once


@dataclass(frozen=True, eq=False)
class Continuation:
    """Of each token of a continuation (n,): `log_probs` in nats, and `best_log_probs` of the likeliest token there."""

    log_probs: NDArray[np.float64]
    best_log_probs: NDArray[np.float64]

    @property
    def log_prob(self) -> float:
        """Log-probability of the whole continuation, in nats."""
        return float(self.log_probs.sum())

    @property
    def greedy(self) -> bool:
        """Whether every token is the likeliest one."""
        return bool(np.all(self.log_probs >= self.best_log_probs))


def score_continuations(
    model: LanguageModel,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size_tokens: int = 8192,
    advance: Callable[[float], None] = lambda amount: None,
) -> list[Continuation]:
    """Scores each (context, continuation), both with at least one token; the two together have at most one token more
    than the model's context, as the last is only predicted. Results in the order given; `advance` gets how many
    pairs are done. Raises `ValueError` for a pair that is empty or too long.
    """
    limit = model.config.max_position_embeddings + 1
    rows: dict[tuple[int, ...], list[tuple[int, int, int]]] = {}  # input tokens -> (pair, first position, length)
    targets: list[Sequence[int]] = []
    for number, (context, continuation) in enumerate(pairs):
        if not context or not continuation or len(context) + len(continuation) > limit:
            raise ValueError(f"pair {number}: {len(context)} and {len(continuation)} tokens; 1 to {limit} together")
        read = (*context, *continuation[:-1])
        rows.setdefault(read, []).append((number, len(context) - 1, len(continuation)))
        targets.append(continuation)
    continuations: list[Continuation | None] = [None] * len(pairs)
    with evaluation_mode(model):
        inputs = sorted(rows, key=len, reverse=True)
        start = 0
        while start < len(inputs):
            count = max(1, batch_size_tokens // len(inputs[start]))
            batch = inputs[start : start + count]
            start += count
            asked = [(row, *place) for row, read in enumerate(batch) for place in rows[read]]
            scores = _score(model, batch, [(row, first, targets[pair]) for row, pair, first, _ in asked])
            for (_, pair, _, _), score in zip(asked, scores, strict=True):
                continuations[pair] = score
            advance(len(asked))
    return [score for score in continuations if score is not None]


@torch.inference_mode()
def _score(
    model: LanguageModel, batch: Sequence[Sequence[int]], asked: Sequence[tuple[int, int, Sequence[int]]]
) -> list[Continuation]:
    """The continuations `asked` for, (row, first position, tokens) each, after one pass over `batch`."""
    device = model.head_weight.device
    padded = np.zeros((len(batch), max(map(len, batch))), np.int64)
    for row, tokens in enumerate(batch):
        padded[row, : len(tokens)] = tokens
    hidden: Any = model.core(torch.from_numpy(padded).to(device))
    lengths = [len(tokens) for _, _, tokens in asked]
    rows = np.repeat([row for row, _, _ in asked], lengths)
    columns = np.concatenate([np.arange(first, first + len(tokens)) for _, first, tokens in asked])
    targets = torch.from_numpy(np.concatenate([np.asarray(tokens, np.int64) for _, _, tokens in asked])).to(device)
    places, inverse = np.unique(rows * padded.shape[1] + columns, return_inverse=True)
    flat = hidden.reshape(-1, hidden.size(-1))[torch.from_numpy(places).to(device)]
    chosen = torch.empty(len(inverse), dtype=torch.float64, device=device)
    best = torch.empty_like(chosen)
    step = max(1, _LOGITS // model.config.vocab_size)
    for first in range(0, len(places), step):
        here = np.flatnonzero((inverse >= first) & (inverse < first + step))
        index, rows_here = torch.from_numpy(inverse[here] - first).to(device), torch.from_numpy(here).to(device)
        logits = model.logits(flat[first : first + step]).float()
        normalizer = require_finite(logits.logsumexp(-1))
        chosen[rows_here] = (logits[index, targets[rows_here]] - normalizer[index]).double()
        best[rows_here] = (logits.amax(-1) - normalizer)[index].double()
    ends = np.cumsum(lengths)[:-1]
    parts = (np.split(values.cpu().numpy(), ends) for values in (chosen, best))
    return [Continuation(log_probs, best_log_probs) for log_probs, best_log_probs in zip(*parts, strict=True)]
