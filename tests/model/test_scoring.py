"""Sentence scores: the chain rule, probabilities that sum to one, and bytes as the unit between tokenizers."""

import itertools
import math

import pytest
import torch

from maquette.artifacts import ConfigError
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.scoring import score_continuations, score_sentences
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

SENTENCES = ["the mouse ate the cheese", "the cheese ate the mouse", "Käse 🧀", "a"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


def build(vocabulary: int = 272, context: int = 32) -> LanguageModel:
    model = LanguageModel(
        TransformerConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=context,
            token_shift=True,
        )
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


def test_chain_rule(tokenizer: Tokenizer) -> None:
    """The score of a sentence is the sum of conditionals, each from a pass of its own over the tokens before."""
    model = build()
    for score in score_sentences(model, tokenizer, SENTENCES):
        conditionals = []
        for place, token in enumerate(score.tokens):
            with torch.no_grad():
                logits = model(torch.tensor([[tokenizer.document_id, *score.tokens[:place]]]))[0, -1]
            conditionals.append(float(logits.log_softmax(-1)[token]))
        assert score.token_log_probs == pytest.approx(conditionals, abs=1e-5)
        assert score.log_prob == pytest.approx(sum(conditionals), abs=1e-4)


def test_probabilities_of_all_continuations_sum_to_one() -> None:
    model = build(vocabulary=6)
    sequences = [[0, 3, *rest] for rest in itertools.product(range(6), repeat=3)]
    pairs = [(row[:1], row[1:]) for row in sequences]
    scores = [score.log_probs for score in score_continuations(model, pairs, batch_size_tokens=64)]
    assert math.fsum(math.exp(sum(score[1:])) for score in scores) == pytest.approx(1.0, abs=1e-5)
    assert len({round(score[0], 5) for score in scores}) == 1, "the shared beginning has one score"


def test_units(tokenizer: Tokenizer) -> None:
    score = score_sentences(build(), tokenizer, ["Käse"])[0]
    assert (len(score.tokens), score.num_bytes) == (5, 5)
    assert score.per_token == pytest.approx(score.log_prob / 5)
    assert score.bits_per_byte == pytest.approx(-score.log_prob / math.log(2) / 5)
    assert score.perplexity == pytest.approx(math.exp(-score.log_prob / 5))


def test_uniform_model(tokenizer: Tokenizer) -> None:
    model = build()
    torch.nn.init.zeros_(model.head.weight)
    score = score_sentences(model, tokenizer, ["abc"])[0]
    assert score.token_log_probs == pytest.approx([-math.log(272)] * 3, abs=1e-5)


def test_order_and_batches_do_not_matter(tokenizer: Tokenizer) -> None:
    model = build().train()
    together = score_sentences(model, tokenizer, SENTENCES)
    assert model.training
    counts: list[float] = []
    alone = score_sentences(model, tokenizer, SENTENCES[::-1], batch_size_tokens=1, advance=counts.append)[::-1]
    assert [score.text for score in together] == SENTENCES
    for one, other in zip(together, alone, strict=True):
        assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-5)
    assert counts == [1, 1, 1, 1]


def test_a_longer_sentence_begins_with_the_shorter(tokenizer: Tokenizer) -> None:
    short, long = score_sentences(build(), tokenizer, ["the mouse", "the mouse ate"])
    assert long.token_log_probs[: len(short.tokens)] == pytest.approx(short.token_log_probs, abs=1e-5)


def test_limits(tokenizer: Tokenizer) -> None:
    model = build()
    assert len(score_sentences(model, tokenizer, ["x" * 32])[0].tokens) == 32
    with pytest.raises(ConfigError, match=r"Sentence 2 .* has 33 tokens; the model reads 32"):
        score_sentences(model, tokenizer, ["x", "x" * 33])
    with pytest.raises(ConfigError, match=r"Sentence 1 is empty"):
        score_sentences(model, tokenizer, [""])
    assert score_sentences(model, tokenizer, []) == []
