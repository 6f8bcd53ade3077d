"""Small tokens artifacts, written as the stage writes them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maquette.artifacts import manifest
from maquette.data import TokenShards
from maquette.data.shards import EncodedDocument, ShardWriter, folder_name, token_dtype

Documents = Mapping[str, Mapping[str, Sequence[Sequence[int]]]]
"""Domain -> split -> documents, each a list of ids."""


def write_artifact(
    root: Path, documents: Documents, *, vocab_size: int = 1024, shard_tokens: int = 1000, digest: str = "f" * 64
) -> Path:
    """A tokens artifact of `documents`; the bytes of text of a document are twice its tokens."""
    dtype = token_dtype(vocab_size)

    def make(folder: Path) -> dict[str, Any]:
        domains: dict[str, Any] = {}
        for domain, splits in documents.items():
            domains[domain] = {"folder": folder_name(domain), "splits": {}}
            for split, texts in splits.items():
                writer = ShardWriter(folder / folder_name(domain), split, dtype, 0, shard_tokens)
                for number, text in enumerate(texts):
                    tokens = np.array(text, dtype=dtype)
                    writer.add(EncodedDocument(f"{domain}/{split}/{number}", tokens, 2 * len(text)))
                domains[domain]["splits"][split] = writer.close()
        return {
            "tokenizer": {"name": "bpe-1024-12345678", "digest": digest},
            "vocab_size": vocab_size,
            "document_id": 0,
            "dtype": dtype.name,
            "domains": domains,
        }

    return manifest.build(
        "tokens", root, name=None, label="test", config={"n": shard_tokens}, inputs={}, make=make, say=lambda _: None
    )


@pytest.fixture(scope="session")
def make_artifact() -> Callable[..., Path]:
    """`write_artifact(root, documents, ...)`."""
    return write_artifact


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
