"""Tokenizers out of GGUF metadata: ids as an encoder that knows nothing of `tokenizers` gives them."""

import itertools

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from maquette.text import Tokenizer
from maquette.text.gguf_tokenizer import SPLITS, tokenizer_files
from support.gguf_files import byte_level, independent, metadata_of, strings


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
