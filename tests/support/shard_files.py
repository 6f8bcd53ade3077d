"""Small tokens artifacts, written as the stage writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts import manifest
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
