"""Reading a batch beside a training step: its share of the step of a small model, in one process, read when asked for.

    python benchmarks/read_speed.py [--size 300k] [--vocab-size 1024] [--sequence-length 128] [--rounds 9] [--steps 20]

The batch is the recipe's for that size; the step is forward, loss, backward and fused AdamW in float32. The tokens are
random, in five domains and several files. Steps and reads take turns; the share is the median over rounds, and at most
1% is the aim. With `data.workers` other processes read ahead, and the share is smaller still.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maquette.artifacts import manifest
from maquette.data import MixtureOrder, TokenShards, TrainingBatches
from maquette.data.config import MixtureConfig
from maquette.data.shards import EncodedDocument, ShardWriter, token_dtype
from maquette.model import LanguageModel, ModelConfig, next_token_loss
from maquette.recipe.pretraining import resolve

DOMAINS = {"code": 4_000_000, "docs": 3_000_000, "legal": 200_000, "readme": 500_000, "reference": 200_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="300k")
    parser.add_argument("--vocab-size", type=int, default=1024)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20, help="steps, and reads, in one round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    recipe = resolve(
        size=arguments.size,
        vocab_size=arguments.vocab_size,
        sequence_length=arguments.sequence_length,
        model=ModelConfig(),
    )
    model = LanguageModel(recipe.architecture)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    reading: list[float] = []
    training: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        shards = TokenShards(_artifact(Path(folder), arguments.vocab_size))
        order = MixtureOrder(
            MixtureConfig(), shards.tokens(), context=arguments.sequence_length, token_budget=recipe.tokens, seed=0
        )
        sequences = recipe.batch_size_tokens // arguments.sequence_length
        batches = iter(
            TrainingBatches(shards, order, batch_sequences=sequences, micro_batch_size=sequences, steps=recipe.steps)
        )
        for _ in range(arguments.rounds + 1):
            start = time.perf_counter()
            read = list(itertools.islice(batches, arguments.steps))
            reading.append((time.perf_counter() - start) / arguments.steps)
            start = time.perf_counter()
            for batch in read:
                optimizer.zero_grad(set_to_none=True)
                next_token_loss(model.core(batch.inputs), model.head_weight, batch.targets)[0].backward()
                optimizer.step()
            training.append((time.perf_counter() - start) / arguments.steps)
    reading, training = reading[1:], training[1:]  # the first round warms up
    shares = [read / (read + step) for read, step in zip(reading, training, strict=True)]
    print(
        f"{recipe.size:,} parameters, {sequences} sequences of {arguments.sequence_length} tokens a step, "
        f"{arguments.threads} thread(s), float32"
    )
    print(f"{'training step':16}{1e3 * statistics.median(training):8.2f} ms")
    print(f"{'reading a batch':16}{1e3 * statistics.median(reading):8.3f} ms")
    print(f"{'share':16}{statistics.median(shares):8.2%}  ({min(shares):.2%} to {max(shares):.2%})")


def _artifact(root: Path, vocabulary: int) -> Path:
    """Random tokens in documents of about 800, as the tokens stage writes them."""
    generator = np.random.default_rng(0)
    dtype = token_dtype(vocabulary)

    def make(folder: Path) -> dict[str, Any]:
        facts = {}
        for domain, count in DOMAINS.items():
            writer = ShardWriter(folder / domain, "train", dtype, 0, 1 << 20)
            for number, tokens in enumerate(np.array_split(generator.integers(16, vocabulary, count), count // 800)):
                writer.add(EncodedDocument(f"{domain}/{number}", tokens.astype(dtype), 0))
            facts[domain] = {"folder": domain, "splits": {"train": writer.close()}}
        tokenizer = {"name": "none", "digest": "0" * 64}
        return {
            "tokenizer": tokenizer,
            "vocab_size": vocabulary,
            "document_id": 0,
            "dtype": dtype.name,
            "domains": facts,
        }

    return manifest.build(
        "tokens", root, name=None, label="random", config={}, inputs={}, make=make, say=lambda _: None
    )


if __name__ == "__main__":
    main()
