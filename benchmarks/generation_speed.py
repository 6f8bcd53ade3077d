"""Tokens per second of greedy generation beside `transformers`, at the same weights, shapes, numerics and threads.

    python benchmarks/generation_speed.py [--size 1m] [--batch 32] [--prompt 32] [--new 128] [--rounds 7]

Both run in turn in one process, so that whatever else the machine does falls on both; the ratio is the median over
rounds. Both must write the same tokens, or no figure is printed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
import transformers

from maquette.artifacts.settings import parse_quantity
from maquette.model import LanguageModel, ModelConfig, count_parameters, hf
from maquette.model.generation import generate
from maquette.recipe.shape import choose_shape
from maquette.text import train_tokenizer
from maquette.text.config import TokenizerConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1m", help="parameters of the model, core and head")
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    config = choose_shape(
        ModelConfig(token_shift=False),
        parse_quantity(arguments.size),
        vocab_size=arguments.vocabulary,
        context=arguments.prompt + arguments.new,
    )
    model = LanguageModel(config).eval()
    with torch.no_grad():  # larger weights than at the start of training, so that no two logits are nearly equal
        for parameter in model.parameters():
            parameter.mul_(3.0)
    with tempfile.TemporaryDirectory() as folder:
        hf.save(model, train_tokenizer([], TokenizerConfig(kind="byte")), folder)
        peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = torch.randint(16, arguments.vocabulary, (arguments.batch, arguments.prompt))

    def ours() -> list[list[int]]:
        rows = generate(model, prompts.tolist(), max_tokens=arguments.new, stop_ids=())
        return [list(row.tokens) for row in rows]

    def theirs() -> list[list[int]]:
        text = peer.generate(
            prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=arguments.new, do_sample=False,
            eos_token_id=None, pad_token_id=1,
        )  # fmt: skip
        return text[:, arguments.prompt :].tolist()

    if ours() != theirs():
        raise SystemExit("The two do not write the same tokens: nothing to compare.")
    times: dict[str, list[float]] = {"maquette": [], "transformers": []}
    for _ in range(arguments.rounds):
        times["maquette"].append(_seconds(ours))
        times["transformers"].append(_seconds(theirs))
    parameters = count_parameters(config)
    print(
        f"{parameters.core + parameters.head:,} parameters, batch {arguments.batch}, "
        f"{arguments.prompt} + {arguments.new} tokens, {arguments.threads} thread(s), float32, "
        f"torch {torch.__version__}"
    )
    total = arguments.batch * arguments.new
    for name, seconds in times.items():
        print(f"{name:14}{total / statistics.median(seconds):10,.0f} tokens/s")
    ratios = [theirs / ours for ours, theirs in zip(times["maquette"], times["transformers"], strict=True)]
    print(f"{'ratio':14}{statistics.median(ratios):10.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
