"""Tokenizers out of GGUF metadata: ids as an encoder that knows nothing of `tokenizers` gives them."""

import itertools
import random
from collections.abc import Mapping

import pytest
import regex
from tests.support.gguf_files import byte_level, metadata_of
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from maquette.text import Tokenizer
from maquette.text.gguf_tokenizer import SPLITS, tokenizer_files


def independent(text: str, pre: str, ranks: Mapping[tuple[str, ...], int], vocabulary: Mapping[str, int]) -> list[int]:
    """Byte-level BPE by its definition: split, write bytes as characters, join the best-ranked pair until none is
    left (Sennrich et al. 2016, algorithm 1)."""
    words = [text]
    for pattern in SPLITS[pre]:
        words = [piece for word in words for piece in _isolated(pattern, word)]
    ids = []
    for word in words:
        parts = [_CHARACTER[byte] for byte in word.encode()]
        if pre in ("llama-bpe", "tekken") and "".join(parts) in vocabulary:
            parts = ["".join(parts)]
        while len(parts) > 1:
            rank, place = min((ranks.get(pair, 1 << 30), at) for at, pair in enumerate(itertools.pairwise(parts)))
            if rank == 1 << 30:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        ids += [vocabulary[part] for part in parts]
    return ids


def _isolated(pattern: str, text: str) -> list[str]:
    pieces, end = [], 0
    for match in regex.finditer(pattern, text):
        pieces += [text[end : match.start()], match[0]]
        end = match.end()
    return [piece for piece in [*pieces, text[end:]] if piece]


_PRINTING = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_CHARACTER = {byte: chr(byte) for byte in _PRINTING}
_CHARACTER |= {byte: chr(256 + place) for place, byte in enumerate(b for b in range(256) if b not in _PRINTING)}


def strings(count: int, texts: list[str], seed: int = 0) -> list[str]:
    """Pieces of text with digits, spaces, capitals, contractions, signs and other scripts put between."""
    draw = random.Random(seed)
    odd = [
        " ",
        "  ",
        "\n",
        "\r\n\n",
        "\t",
        "1234567",
        "42",
        "it's",
        "I'LL",
        "É",
        "naïve",
        "東京",
        "🎉",
        "_x",
        "//",
        "…",
        "Ωmega",
        "\u00a0",
    ]
    source = "\n".join(texts)
    made = []
    for _ in range(count):
        start = draw.randrange(len(source) - 60)
        parts = [
            source[start : start + draw.randrange(40)],
            draw.choice(odd),
            draw.choice(odd),
            source[start : start + 5],
        ]
        draw.shuffle(parts)
        made.append("".join(parts))
    return made


@pytest.mark.parametrize("pre", SPLITS)
def test_ids_equal_those_of_another_encoder(pre: str, texts: list[str]) -> None:
    metadata = metadata_of(byte_level(texts, pre, 600), pre)
    document, settings = tokenizer_files(metadata)
    tokenizer = Tokenizer(document, settings)
    vocabulary = {token: id for id, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(metadata["tokenizer.ggml.merges"])}
    for text in strings(1500, texts):
        ids = tokenizer.encode(text)
        assert ids == independent(text, pre, ranks, vocabulary), text
        assert tokenizer.decode(ids) == text


def test_sentencepiece_scores_become_merges(texts: list[str]) -> None:
    learner = Backend(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    pieces = sorted(learner.get_vocab(), key=learner.get_vocab().get)  # type: ignore[arg-type]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *pieces]
    document, settings = tokenizer_files({
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces)],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(rank) for rank in range(len(pieces))],
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
    })  # fmt: skip
    tokenizer = Tokenizer(document, settings)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    for text in strings(200, texts):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        parts = list("▁" + text.replace(" ", "▁"))
        while True:  # the pair whose piece has the best score, until none is a piece
            pairs = [(ranks[a + b], at) for at, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ranks]
            if not pairs:
                break
            place = min(pairs)[1]
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        expected = [
            id
            for part in parts
            for id in ([ranks[part]] if part in ranks else [ranks[f"<0x{byte:02X}>"] for byte in part.encode()])
        ]
        assert ids == expected, text
