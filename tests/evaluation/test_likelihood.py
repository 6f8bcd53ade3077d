"""Likelihood of documents: windows that predict each token once, perplexities by hand, calibration."""

import math

import numpy as np
import pytest

from maquette.artifacts import ConfigError, StageError
from maquette.evaluation.likelihood import DocumentLikelihood, calibration_error, measure, summarize, windows
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.scoring import score_continuations
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig


@pytest.mark.parametrize(("length", "stride"), [(5, 3), (9, 8), (30, 8), (31, 3), (100, 1)])
def test_windows_predict_each_token_once(length: int, stride: int) -> None:
    tokens = list(range(length))
    result = windows(tokens, 8, stride)
    assert [token for _, predicted in result for token in predicted] == tokens[1:]
    for number, (context, predicted) in enumerate(result):
        assert [*context, *predicted] == tokens[context[0] : predicted[-1] + 1]
        assert len(context) + len(predicted) <= 9
        assert number == 0 or len(context) >= 9 - stride
    with pytest.raises(ConfigError, match="stride=9"):
        windows(tokens, 8, 9)


def test_measures_what_the_model_says() -> None:
    tokenizer = train_tokenizer([], TokenizerConfig(kind="byte"))
    model = LanguageModel(
        TransformerConfig(
            tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16
        )
    )
    short, long = "two words", "a text that is longer than the context of the model"
    first, second = measure(model, tokenizer, [("a", "x", short), ("b", "x", long)], stride=16)
    document = tokenizer.document_id
    assert document is not None
    (expected,) = score_continuations(model, [([document], tokenizer.encode(short))])
    assert first.nats == pytest.approx(-expected.log_prob, rel=1e-5)
    assert (first.tokens, first.words, first.bytes) == (9, 2, 9)
    assert sum(row[0] for row in second.bins) == second.tokens == len(long)
    whole = measure(model, tokenizer, [("b", "x", long)], stride=1)[0]
    assert whole.tokens == second.tokens and whole.nats != second.nats
    with pytest.raises(StageError, match="c is empty"):
        measure(model, tokenizer, [("c", "x", "")])


def document(
    nats: float, tokens: int, bins: tuple[tuple[float, float, float], ...] = ((1, 0.5, 1),)
) -> DocumentLikelihood:
    return DocumentLikelihood("d", "x", nats, tokens, tokens // 2, 4 * tokens, bins)


def test_summary_by_hand() -> None:
    """10 and 30 tokens with 20 and 20 nats: one nat a token, two a word, a quarter a byte."""
    result = summarize([document(20, 10), document(20, 30)], resamples=500)
    assert result.perplexity.value == pytest.approx(math.e)
    assert result.word_perplexity.value == pytest.approx(math.exp(2))
    assert result.bits_per_byte.value == pytest.approx(0.25 / math.log(2))
    assert result.bits_per_byte.low == pytest.approx(20 / 120 / math.log(2))
    assert result.bits_per_byte.high == pytest.approx(0.5 / math.log(2))
    assert math.isnan(summarize([document(20, 10)]).perplexity.low)
    assert summarize([document(0, 10), document(0, 10)]).perplexity.value == 1


def test_calibration_by_hand() -> None:
    """Six predictions sure of .5 and right twice, four sure of .9 and right always."""
    bins = np.array([[6, 3.0, 2], [4, 3.6, 4]])
    assert calibration_error(bins) == pytest.approx((1.0 + 0.4) / 10)
    assert calibration_error(np.array([[2, 1.0, 1.0]])) == 0
