"""One small tokenizer of each kind and pre-tokenizer, trained once on a small mixed text."""

import pytest

from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

TEXTS = [
    "The mouse ate the cheese. The cheese wasn't eaten by the mouse, it's said, in 1987.\n" * 6,
    "def fold(values):\n    total = 0\n    for value in values:\n        if value > 327:\n\t\ttotal += value\n" * 6,
    "Straße, naïve café, 人工知能, ภาษาไทยไม่เว้นวรรค, 🎉 and 👩🏽‍🚀.\r\n" * 4,
]

KINDS = [
    ("bpe", "gpt4"),
    ("bpe", "code"),
    ("bpe", "whitespace"),
    ("unigram", "gpt4"),
    ("unigram", "code"),
    ("unigram", "whitespace"),
    ("char", "gpt4"),
    ("byte", "gpt4"),
]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return TEXTS


@pytest.fixture(scope="session")
def trained(texts: list[str]) -> dict[tuple[str, str], Tokenizer]:
    """(kind, pre-tokenizer) -> tokenizer."""
    return {
        (kind, cut): train_tokenizer(texts, TokenizerConfig(kind=kind, pretokenizer=cut, vocab_size=400))
        for kind, cut in KINDS
    }


@pytest.fixture(params=KINDS, ids=["-".join(each) for each in KINDS])
def tokenizer(request: pytest.FixtureRequest, trained: dict[tuple[str, str], Tokenizer]) -> Tokenizer:
    return trained[request.param]


@pytest.fixture(scope="session")
def bpe(trained: dict[tuple[str, str], Tokenizer]) -> Tokenizer:
    return trained["bpe", "gpt4"]
