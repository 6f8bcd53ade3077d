"""From documents to shards: every token arrives, held-out text shares no run with training, damage is refused."""

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maquette.artifacts import StageError, manifest
from maquette.corpus.document import Document, write_documents
from maquette.data import TokenShards, encode_corpus
from maquette.data.config import DataConfig, MixtureConfig, ShardsConfig
from maquette.data.encoding import encode_documents
from maquette.data.overlap import MINIMUM_PIECE, cut_seen
from maquette.data.pretraining_data import PretrainingData
from maquette.data.shards import EncodedDocument
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig

Texts = dict[str, dict[str, list[str]]]
"""Split -> domain -> texts."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], TokenizerConfig(kind="byte"))


@pytest.fixture
def encode(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., TokenShards]:
    """Writes a corpus of texts, encodes it, opens the shards."""

    def encoded(texts: Texts, config: ShardsConfig | None = None) -> TokenShards:
        corpus = tmp_path / "corpus"
        corpus.mkdir(exist_ok=True)
        for split in ("train", "validation", "test"):
            rows = [
                Document(f"{split}/{domain}/{number}", text, domain=domain)
                for domain, own in sorted(texts.get(split, {}).items())
                for number, text in enumerate(own)
            ]
            write_documents(corpus / f"{split}.parquet", rows)
        folder = manifest.build(
            "tokens", tmp_path, name=None, label="byte", config={}, inputs={}, force=True, say=lambda _: None,
            make=lambda folder: encode_corpus(corpus, tokenizer, config or ShardsConfig(), folder, name="byte"),
        )  # fmt: skip
        return TokenShards(folder, tokenizer.digest)

    return encoded


def _words(seed: int, count: int) -> str:
    generator = random.Random(seed)
    return " ".join("".join(generator.choices("abcdefghij", k=5)) for _ in range(count))


def _runs(row: np.ndarray, window: int) -> set[tuple[int, ...]]:
    return {tuple(row[start : start + window].tolist()) for start in range(len(row) - window + 1)}


def _whole(shards: TokenShards, domain: str, split: str) -> np.ndarray:
    stream = shards.stream(domain, split)
    return stream.read(0, len(stream))


def test_every_document_arrives_in_its_order(encode: Callable[..., TokenShards], tokenizer: Tokenizer) -> None:
    texts: Texts = {
        "train": {"code": ["x = 1\n", "", "größe 🎉", "<|document|>"], "web": [_words(1, 300)]},
        "validation": {"code": ["held out"]},
    }
    shards = encode(texts, ShardsConfig(shard_tokens=1024))
    expected = [token for text in texts["train"]["code"] if text for token in (0, *tokenizer.encode(text))]
    assert _whole(shards, "code", "train").tolist() == expected
    assert shards.documents("code").ids == ["train/code/0", "train/code/2", "train/code/3"]
    assert shards.documents("code").bytes.tolist() == [6, len("größe 🎉".encode()), 12]
    assert shards.text_bytes() == {"code": 6 + 12 + 12, "web": len(texts["train"]["web"][0])}
    assert len(list((shards.folder / "web").glob("train-*.npy"))) == 2
    assert _whole(shards, "code", "validation").tolist() == [0, *tokenizer.encode("held out")]
    assert shards.tokens("validation") == {"code": 9, "web": 0}
    assert shards.document_id == tokenizer.document_id


def test_threads_and_batches_change_nothing(tokenizer: Tokenizer) -> None:
    documents = [Document(str(number), _words(number, number % 400)) for number in range(300)]
    one = list(encode_documents(documents, tokenizer, workers=1))
    three = list(encode_documents(iter(documents), tokenizer, workers=3))
    assert [each.id for each in one] == [each.id for each in three] == [document.id for document in documents]
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(one, three, strict=True))


def test_documents_stream(tokenizer: Tokenizer) -> None:
    taken = 0

    def endless() -> itertools.count:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield Document(str(number), "x" * 100_000)

    stream = encode_documents(endless(), tokenizer, workers=2)
    for _ in range(10):
        next(stream)
    stream.close()
    assert taken < 40


def test_held_out_text_shares_no_run_with_training(encode: Callable[..., TokenShards]) -> None:
    licence = _words(100, 30)
    train = {
        "code": [f"{licence} {_words(number, 40)}" for number in range(5)],
        "docs": [_words(50 + number, 60) for number in range(5)],
    }
    held_out = {
        "code": [
            f"{_words(200 + number, 20)} {licence[: 20 + 10 * number]} {_words(300 + number, 20)}"
            for number in range(8)
        ],
        "docs": [train["docs"][0], _words(400, 50) + train["code"][1][60:200], train["docs"][1][:50] + _words(401, 50)],
    }
    shards = encode({"train": train, "validation": held_out, "test": {"docs": [_words(500, 30)]}})
    seen = set().union(*(_runs(_whole(shards, domain, "train"), 24) for domain in train))
    for split, domain in (("validation", "code"), ("validation", "docs"), ("test", "docs")):
        assert not seen & _runs(_whole(shards, domain, split), 24)
    facts = shards.manifest.facts["held_out"]
    assert facts["window"] == 24
    code, docs, test = (
        facts["domains"]["code"]["validation"],
        facts["domains"]["docs"]["validation"],
        facts["domains"]["docs"]["test"],
    )
    assert 0.1 < code["seen_share_before"] < 0.3
    assert 0.3 < docs["seen_share_before"] < 0.7
    assert test["seen_share_before"] == 0.0
    assert {code["seen_share_after"], docs["seen_share_after"], test["seen_share_after"]} == {0.0}
    assert docs["tokens_after"] == shards.tokens("validation")["docs"] < docs["tokens_before"]
    # A document that was in training as a whole is gone; what is left of the others keeps their names.
    assert set(shards.documents("docs", "validation").ids) == {"validation/docs/1", "validation/docs/2"}
    assert shards.text_bytes("validation")["docs"] == len(_whole(shards, "docs", "validation")) - 2


def test_held_out_text_is_kept_where_told_so(encode: Callable[..., TokenShards]) -> None:
    text = {"code": [_words(1, 50)]}
    shards = encode({"train": text, "validation": text}, ShardsConfig(held_out_window=0))
    assert shards.tokens("validation") == shards.tokens("train")
    assert shards.manifest.facts["held_out"]["window"] == 0


TOY = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=120), max_size=4)


@given(held_out=TOY, training=TOY, window=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_cutting_leaves_no_shared_run_however_repetitive_the_text(held_out, training, window: int) -> None:
    def row(documents: list[EncodedDocument]) -> np.ndarray:
        return np.array([token for document in documents for token in (0, *document.tokens.tolist())], dtype=np.uint16)

    def encoded(texts: list[list[int]]) -> list[EncodedDocument]:
        return [EncodedDocument(str(k), np.array(text, dtype=np.uint16), len(text)) for k, text in enumerate(texts)]

    train = row(encoded(training))
    documents = encoded(held_out)
    (cut,) = cut_seen(
        [documents], lambda: [train], window, document_id=0, byte_lengths=np.array([0, 1, 1, 1], dtype=np.int32)
    )
    left = row(cut.documents)
    seen = _runs(train, window)
    assert {run for run in seen & _runs(left, window) if set(run) != {0}} == set()
    assert cut.seen == sum(tuple(run) in seen for run in _all_runs(row(documents), window))
    assert cut.tokens_after == len(left)
    for document in cut.documents:
        source = held_out[int(document.id)]
        tokens = document.tokens.tolist()
        assert tokens in [source[start : start + len(tokens)] for start in range(len(source))]
        assert len(tokens) >= MINIMUM_PIECE or tokens == source
        assert document.bytes == len(tokens)
    if not seen & _runs(row(documents), window):
        assert cut.documents == documents


def _all_runs(row: np.ndarray, window: int) -> list[tuple[int, ...]]:
    return [tuple(row[start : start + window].tolist()) for start in range(len(row) - window + 1)]


def test_the_entropy_of_the_training_texts_token_frequencies_is_recorded(encode: Callable[..., TokenShards]) -> None:
    shards = encode({"train": {"a": ["aaab"], "b": ["bbbb"]}, "validation": {"a": ["zzzz"]}})
    share = np.array([3, 5, 2]) / 10  # a, b, and a document token in front of each text
    expected = pytest.approx(-(share * np.log(share)).sum())
    assert shards.manifest.facts["unigram_entropy"] == expected


def test_a_mixture_has_an_entropy_of_its_own(encode: Callable[..., TokenShards], tokenizer: Tokenizer) -> None:
    shards = encode({"train": {"a": ["aaab" * 8], "b": ["bbbb" * 8]}, "validation": {"a": ["zzzz"]}})

    def entropy(**weights: float) -> float | None:
        data = PretrainingData(
            shards.folder, tokenizer, data=DataConfig(sequence_length=8), mixture=MixtureConfig(weights=weights),
            batch_sequences=2, micro_batch_size=2, steps=2, seed=0,
        )  # fmt: skip
        data.setup()
        return data.unigram_entropy()

    share = np.array([24, 1, 8]) / 33  # of domain a: a, a document token, b
    assert entropy(a=1.0) == pytest.approx(-(share * np.log(share)).sum())
    share = (3 * np.array([24, 1, 8]) + np.array([0, 1, 32])) / 33 / 4
    assert entropy(a=0.75, b=0.25) == pytest.approx(-(share * np.log(share)).sum())
    assert entropy() == shards.manifest.facts["unigram_entropy"]


def test_a_corpus_without_training_text_is_refused(encode: Callable[..., TokenShards]) -> None:
    with pytest.raises(StageError, match="no training text"):
        encode({"validation": {"code": ["held out"]}})


def test_a_tokenizer_that_can_not_begin_a_document_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_documents(tmp_path / "train.parquet", [Document("1", "text")])

    class Without:
        document_id = None

    with pytest.raises(StageError, match="tokenizer gpt has no token that begins"):
        encode_corpus(tmp_path, Without(), ShardsConfig(), tmp_path / "out", name="gpt")  # type: ignore[arg-type]
