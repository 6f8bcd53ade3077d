"""Token shards that many tests read."""

import numpy as np
import pytest

from maquette.data import TokenShards
from support.shard_files import write_artifact


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    """Three domains of about 6,000, 3,000 and 2,000 training tokens, every token of a domain its own number."""
    generator = np.random.default_rng(0)
    documents: dict[str, dict[str, list[list[int]]]] = {}
    for number, (domain, count) in enumerate({"books": 60, "code": 30, "web pages": 20}.items()):
        documents[domain] = {}
        for split, share in {"train": 1.0, "validation": 0.3}.items():
            lengths = generator.integers(50, 150, size=int(count * share))
            first = 1 + 20_000 * number + (10_000 if split == "validation" else 0)
            ids = np.arange(first, first + lengths.sum())
            documents[domain][split] = [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
    return TokenShards(write_artifact(tmp_path_factory.mktemp("tokens"), documents, vocab_size=65_536))
