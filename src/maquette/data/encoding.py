"""From a corpus to token shards: encode in parallel, then cut out of held-out text what training has seen.

Encoding runs in threads: the Rust library lets go of Python's lock while it works, and each thread turns its own
results into arrays, so all cores are busy without copying text between processes.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts import StageError
from maquette.artifacts.progress import progress
from maquette.artifacts.reading import open_parquet
from maquette.corpus.document import Document, domains, read_documents
from maquette.corpus.workers import Workers, available_cores, batches
from maquette.data.config import ShardsConfig
from maquette.data.overlap import cut_seen
from maquette.data.shards import (
    EncodedDocument,
    ShardWriter,
    Tokens,
    folder_name,
    open_stream,
    token_dtype,
    unigram_entropy,
)
from maquette.text import Tokenizer

HELD_OUT_SPLITS = ("validation", "test")

_BATCH_CHARACTERS = 262_144
_SCAN_TOKENS = 131_072
_LIBRARY_THREADS = "TOKENIZERS_PARALLELISM"


def encode_corpus(
    corpus: Path, tokenizer: Tokenizer, config: ShardsConfig, folder: Path, *, name: str
) -> dict[str, Any]:
    """Writes the shards of every domain and split into `folder`; returns the manifest's facts.

    `name` is what messages call the tokenizer. Raises `StageError` where the corpus has no training text, or the
    tokenizer no token to begin documents with.
    """
    document_id = tokenizer.document_id
    if document_id is None:
        raise StageError(
            f"The tokenizer {name} has no token that begins or ends a document.",
            "Its tokenizer_config.json should name a bos_token or an eos_token.",
        )
    names = {split: domains(corpus, split) for split in ("train", *HELD_OUT_SPLITS)}
    dtype = token_dtype(tokenizer.vocab_size)
    splits: dict[str, dict[str, Any]] = {domain: {} for domain in sorted(set().union(*names.values()))}

    def write(domain: str, split: str, documents: Iterable[EncodedDocument]) -> None:
        writer = ShardWriter(folder / folder_name(domain), split, dtype, document_id, config.shard_tokens)
        for document in documents:
            writer.add(document)
        splits[domain][split] = writer.close()

    with progress("encoding", _count_documents(corpus), unit="documents") as advance:

        def encoded(domain: str, split: str) -> Iterator[EncodedDocument]:
            for document in encode_documents(read_documents(corpus, split, domain), tokenizer, config.workers):
                advance(1)
                if len(document.tokens):
                    yield document

        for domain in names["train"]:
            write(domain, "train", encoded(domain, "train"))
        held_out = {
            (domain, split): list(encoded(domain, split)) for split in HELD_OUT_SPLITS for domain in names[split]
        }

    if not any(splits[domain]["train"]["documents"] for domain in names["train"]):
        raise StageError(f"{corpus} has no training text.", "Give more documents, or loosen the corpus's filters.")
    training = {domain: open_stream(folder, splits[domain]["train"]) for domain in names["train"]}
    window = config.held_out_window
    with progress("comparing held-out text with training text", None, unit="tokens") as advance:

        def pieces() -> Iterator[Tokens]:
            for stream in training.values():
                for piece in stream.pieces(_SCAN_TOKENS, overlap=window - 1):
                    yield piece
                    advance(len(piece))

        texts = list(held_out.values())
        split_entry = cut_seen(texts, pieces, window, document_id=document_id, byte_lengths=tokenizer.byte_lengths())
    cuts: dict[str, Any] = {domain: {} for domain in splits}
    for (domain, split), cut in zip(held_out, split_entry, strict=True):
        cuts[domain][split] = cut.facts()
        write(domain, split, cut.documents)
    return {
        "tokenizer": {"name": name, "digest": tokenizer.digest},
        "vocab_size": tokenizer.vocab_size,
        "document_id": document_id,
        "dtype": dtype.name,
        "domains": {domain: {"folder": folder_name(domain), "splits": entry} for domain, entry in splits.items()},
        "held_out": {"window": window, "domains": cuts},
        "unigram_entropy": unigram_entropy(training, tokenizer.vocab_size),
    }


def describe_tokens(facts: dict[str, Any]) -> list[str]:
    """A line a domain: its training tokens, its held-out tokens and what was cut out of them; and one on the entropy
    of all."""
    lines = []
    for domain, entry in facts["domains"].items():
        trained = entry["splits"].get("train", {"tokens": 0})["tokens"]
        cut = facts["held_out"]["domains"][domain].values()
        before, after = (sum(split_facts[key] for split_facts in cut) for key in ("tokens_before", "tokens_after"))
        lines.append(
            f"{domain}: {trained:,} training tokens, "
            f"{after:,} held-out tokens ({before - after:,} that training has seen were cut out)"
        )
    lines.append(f"unigram entropy: {facts['unigram_entropy']:.2f} nats per token")
    return lines


def encode_documents(
    documents: Iterable[Document], tokenizer: Tokenizer, workers: int | None = None
) -> Iterator[EncodedDocument]:
    """Encodes `documents` with `workers` threads (None: one per core), in their order; a few batches are in memory."""
    workers = workers or available_cores()
    tasks = batches(documents, lambda document: len(document.text), _BATCH_CHARACTERS)
    with _library_threads_off(), ThreadPoolExecutor(workers, thread_name_prefix="encode") as pool:
        try:
            for encoded in Workers(workers, pool).map(functools.partial(_encode_batch, tokenizer), tasks):
                yield from encoded
        finally:
            pool.shutdown(cancel_futures=True)


def _encode_batch(tokenizer: Tokenizer, documents: Sequence[Document]) -> list[EncodedDocument]:
    dtype = token_dtype(tokenizer.vocab_size)
    rows = tokenizer.encode_batch([document.text for document in documents])
    return [
        EncodedDocument(document.id, np.array(row, dtype=dtype), len(document.text.encode()))
        for document, row in zip(documents, rows, strict=True)
    ]


@contextlib.contextmanager
def _library_threads_off() -> Iterator[None]:
    """The library's own threads are left out while ours call it: more threads than cores slow each other down."""
    before = {name: value for name, value in os.environ.items() if name == _LIBRARY_THREADS}
    os.environ[_LIBRARY_THREADS] = "false"
    try:
        yield
    finally:
        del os.environ[_LIBRARY_THREADS]
        os.environ.update(before)


def _count_documents(corpus: Path) -> int:
    return sum(open_parquet(corpus / f"{split}.parquet").metadata.num_rows for split in ("train", *HELD_OUT_SPLITS))
