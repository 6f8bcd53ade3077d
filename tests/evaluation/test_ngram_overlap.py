"""N-gram overlap of a test with training shards, with the documents that hold it."""

import numpy as np
import pytest

from maquette.artifacts import ConfigError
from maquette.data import TokenShards
from maquette.evaluation import ngram_overlap
from support.shard_files import write_artifact


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    """Documents of random tokens; a stretch of "secret" stands in two of them, one across a border of shards."""
    generator = np.random.default_rng(0)
    texts = [generator.integers(1, 1000, 90).tolist() for _ in range(30)]
    secret = list(range(100, 130))
    texts[3][20:50] = secret
    texts[21][70:90] = secret[:20]
    documents = {"books": {"train": texts[:20]}, "code": {"train": texts[20:], "validation": [[1, 2, 3] * 30]}}
    folder = write_artifact(tmp_path_factory.mktemp("overlap"), documents, shard_tokens=113)
    return TokenShards(folder)


def test_finds_the_documents(shards: TokenShards) -> None:
    examples = [list(range(100, 130)), list(range(105, 125)), list(range(500, 560)), [5, 6]]
    seen = []
    whole, part, clean, short = ngram_overlap(shards, examples, window=10, advance=seen.append)
    assert whole.share == 1.0
    assert whole.documents == (("books", "books/train/3"), ("code", "code/train/1"))
    assert part.share == 1.0 and len(part.documents) == 2
    assert (clean.share, clean.documents, clean.tested) == (0.0, (), True)
    assert (short.share, short.tested) == (0.0, False)
    assert sum(seen) >= sum(shards.tokens("train").values())


def test_half_of_an_example(shards: TokenShards) -> None:
    (found,) = ngram_overlap(shards, [[*range(100, 115), *range(900, 915)]], window=10)
    assert found.share == pytest.approx(0.5)
    assert ngram_overlap(shards, [[*range(100, 130)]], window=25)[0].documents == (("books", "books/train/3"),)


def test_other_splits_and_mistakes(shards: TokenShards) -> None:
    (found,) = ngram_overlap(shards, [[1, 2, 3] * 5], window=10, split="validation")
    assert found.documents == (("code", "code/validation/0"),)
    assert ngram_overlap(shards, [], window=10) == []
    with pytest.raises(ConfigError, match="window=1"):
        ngram_overlap(shards, [[1, 2]], window=1)
