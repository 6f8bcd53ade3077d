"""How likely a model finds a sentence: the sum of the log-probabilities of its tokens, each given those before it.

A sentence is read as the beginning of a document: log P(tokens | <|document|>). Its end is not scored, so that a
sentence and a longer one that begins with it can be compared.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from maquette.artifacts import ConfigError, StageError

if TYPE_CHECKING:
    from maquette.model.heads import LanguageModel
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


def score_tokens(
    model: "LanguageModel",
    sequences: Sequence[Sequence[int]],
    *,
    batch_size_tokens: int = 8192,
    advance: Callable[[float], None] = lambda amount: None,
) -> list[list[float]]:
    """For each sequence the log-probability (nats) of every token but the first, each given those before it.

    Sequences of like length are computed together, at most about `batch_size_tokens` at once; the order of the result
    is that of the arguments. `advance` is told how many sequences are done. Sequences have two or more tokens and fit
    the model's context (at most one token more than it, as the last one is only predicted).
    """
    device = next(model.parameters()).device
    results: list[list[float]] = [[] for _ in sequences]
    training = model.training
    model.eval()
    try:
        for rows in _batches([len(sequence) for sequence in sequences], batch_size_tokens):
            width = max(len(sequences[row]) for row in rows)
            # Padding on the right: causal attention keeps it from what comes before
            padded = torch.zeros(len(rows), width, dtype=torch.int64)
            for index, row in enumerate(rows):
                padded[index, : len(sequences[row])] = torch.tensor(sequences[row])
            padded = padded.to(device)
            with torch.no_grad():
                logits = model(padded[:, :-1]).float()
                losses = F.cross_entropy(logits.transpose(1, 2), padded[:, 1:], reduction="none")
            for row, values in zip(rows, (-losses).tolist(), strict=True):
                results[row] = values[: len(sequences[row]) - 1]
            advance(len(rows))
    finally:
        model.train(training)
    return results


def score_sentences(
    model: "LanguageModel",
    tokenizer: "Tokenizer",
    sentences: Sequence[str],
    *,
    batch_size_tokens: int = 8192,
    advance: Callable[[float], None] = lambda amount: None,
) -> list[SentenceScore]:
    """Scores sentences as beginnings of documents; see `score_tokens`.

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
    scores = score_tokens(
        model, [[document, *tokens] for tokens in encoded], batch_size_tokens=batch_size_tokens, advance=advance
    )
    return [
        SentenceScore(text, tuple(tokens), tuple(values), len(text.encode("utf-8", "surrogatepass")))
        for text, tokens, values in zip(sentences, encoded, scores, strict=True)
    ]


def _batches(lengths: Sequence[int], batch_size_tokens: int) -> list[list[int]]:
    """Rows sorted by length, in groups whose padded size stays under `batch_size_tokens` (one row at least)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_size_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
