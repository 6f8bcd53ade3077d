"""Encoding into shards beside the `tokenizers` library alone: the same text, tokenizer and cores, in turn.

    python benchmarks/encode_speed.py [--vocab-size 4096] [--megabytes 16] [--workers 2] [--rounds 5]

The library is given all texts in lists of about 256 kB and does nothing else: no ids are taken from its answers. Ours
reads a corpus from disk, encodes it and writes checked shards. The ratio is the median over rounds; at least 0.8 is
the aim. The text is the source of the installed packages.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from maquette.corpus.document import Document, write_documents
from maquette.data import encode_corpus
from maquette.data.config import ShardsConfig
from maquette.text import Tokenizer, train_tokenizer
from maquette.text.config import TokenizerConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--megabytes", type=int, default=16)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.workers)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"

    texts = _texts(arguments.megabytes * 1_000_000)
    size = sum(len(text.encode()) for text in texts)
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=arguments.vocab_size, training_bytes=4_000_000))
    lists = list(_lists(texts))
    config = ShardsConfig(workers=arguments.workers, held_out_window=0)
    seconds: dict[str, list[float]] = {"tokenizers": [], "maquette": []}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        write_documents(corpus / "train.parquet", [Document(str(k), text) for k, text in enumerate(texts)])
        for split in ("validation", "test"):
            write_documents(corpus / f"{split}.parquet", [])
        for number in range(arguments.rounds):
            out = Path(folder) / str(number)
            seconds["tokenizers"].append(_seconds(lambda: _library(tokenizer, lists)))
            seconds["maquette"].append(
                _seconds(lambda out=out: encode_corpus(corpus, tokenizer, config, out, name="bpe"))
            )
    print(
        f"{size / 1e6:.1f} MB in {len(texts):,} documents, vocabulary {arguments.vocab_size:,}, "
        f"{arguments.workers} threads"
    )
    for name, minima in seconds.items():
        print(f"{name:12}{size / statistics.median(minima) / 1e6:8.2f} MB/s")
    ratios = [theirs / ours for theirs, ours in zip(seconds["tokenizers"], seconds["maquette"], strict=True)]
    print(f"{'ratio':12}{statistics.median(ratios):8.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def _texts(size: int) -> list[str]:
    texts, taken = [], 0
    for path in sorted(Path(torch.__file__).parents[1].glob("*/**/*.py")):
        if taken >= size:
            break
        texts.append(path.read_text(encoding="utf-8", errors="replace"))
        taken += len(texts[-1])
    np.random.default_rng(0).shuffle(texts)
    return [text for text in texts if text]


def _lists(texts: list[str]) -> Iterator[list[str]]:
    chosen: list[str] = []
    for text in texts:
        chosen.append(text)
        if sum(map(len, chosen)) >= 262_144:
            yield chosen
            chosen = []
    yield chosen


def _library(tokenizer: Tokenizer, lists: list[list[str]]) -> None:
    for texts in lists:
        tokenizer.backend.encode_batch_fast(texts, add_special_tokens=False)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
