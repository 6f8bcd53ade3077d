"""How fast answers are scored, beside lm-evaluation-harness's own `hf` backend: `python benchmarks/scoring_speed.py`.

The same exported model, requests and threads, in float32; the peer's batch holds as many tokens of the longest request
as this project's. The two take turns, and the median of the turns counts. Needs the extra `benchmarks`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from maquette.evaluation.harness import HarnessModel
from maquette.model import LanguageModel, TransformerConfig, hf
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig

BATCH_TOKENS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    text = [
        path.read_text(encoding="utf-8", errors="replace") for path in sorted(Path(np.__file__).parent.glob("*.py"))
    ]
    text += [path.read_text(errors="replace") for path in sorted(Path(np.__file__).parent.glob("lib/*.py"))]
    tokenizer = train_tokenizer(text, TokenizerConfig(vocab_size=options.vocabulary))
    shape = TransformerConfig(
        tokenizer.vocab_size, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=512
    )
    with tempfile.TemporaryDirectory() as folder:
        path = hf.save(LanguageModel(shape), tokenizer, Path(folder) / "model")
        ours = HarnessModel(path, batch_size_tokens=BATCH_TOKENS)
        for kind, requests in (("words", _requests(text, options.questions, letters=False)),
                               ("letters", _requests(text, options.questions, letters=True))):  # fmt: skip
            longest = max(len(ours.tok_encode("".join(request.args))) for request in requests)
            theirs = HFLM(
                pretrained=str(path), device="cpu", dtype="float32", batch_size=max(1, BATCH_TOKENS // longest)
            )
            times: dict[str, list[float]] = {"maquette": [], "hf": []}
            for _ in range(options.turns):
                for name, backend in (("maquette", ours), ("hf", theirs)):
                    start = time.perf_counter()
                    scores = backend.loglikelihood(requests, disable_tqdm=True)
                    times[name].append(time.perf_counter() - start)
                    if name == "maquette":
                        reference = [score for score, _ in scores]
                    else:
                        gap = max(abs(a - b) for a, (b, _) in zip(reference, scores, strict=True))
            medians = {name: statistics.median(values) for name, values in times.items()}
            print(
                f"answers as {kind}: {len(requests) / medians['maquette']:.0f} requests/s, hf backend "
                f"{len(requests) / medians['hf']:.0f}: {medians['hf'] / medians['maquette']:.2f} times as fast; "
                f"largest difference {gap:.1e} nats"
            )
            sys.stdout.flush()


def _requests(texts: list[str], count: int, *, letters: bool) -> list[Instance]:
    """Questions with four answers: lines that follow, or one letter each."""
    generator = np.random.default_rng(0)
    lines = [line for text in texts for line in text.splitlines() if 20 < len(line) < 90]
    requests = []
    for _ in range(count):
        chosen = [str(line) for line in generator.choice(lines, int(generator.integers(8, 22)))]
        context, options = "\n".join(chosen[:-4]), chosen[-4:]
        if letters:
            listed = "".join(f"\n{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
            context, options = f"{context}{listed}\nAnswer:", [" A", " B", " C", " D"]
        requests += [
            Instance("loglikelihood", {}, (context, f"\n{o}" if not letters else o), i) for i, o in enumerate(options)
        ]
    return requests


if __name__ == "__main__":
    main()
