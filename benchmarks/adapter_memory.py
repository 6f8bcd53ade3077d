"""Memory and time of a fine-tuning step: all weights, and LoRA.

    python benchmarks/adapter_memory.py [--layers 30] [--rows 4] [--length 128] [--rounds 3] [--rank 8]

The model has SmolLM2-135M's shape and random weights. Each row is of a process of its own: the parameters that are
trained, the peak of its resident memory (weights, gradients, optimiser and activations, float32), what the optimiser
holds, the weights in a checkpoint, and tokens per second of processor time, of the fastest of its steps on one thread.
"""

import argparse
import subprocess
import sys
import time

import torch
from completion_memory import peak

from maquette.data.example_batches import ConversationBatch
from maquette.model import LanguageModel, TransformerConfig
from maquette.model.adapters import attach
from maquette.objectives.sft import SupervisedFineTuning
from maquette.optimization import Optimization
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig

HEADINGS = ("trained", "peak", "optimiser", "checkpoint", "tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--one", choices=("all", "lora"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        measure(arguments)
        return
    print(f"{arguments.rows * arguments.length:,} tokens a step, {arguments.layers} layers, float32, one thread")
    print(f"{'':12}" + "".join(f"{heading:>14}" for heading in HEADINGS))
    options = [f"--{name}={getattr(arguments, name)}" for name in ("layers", "rows", "length", "rounds", "rank")]
    for name, what in (("all weights", "all"), ("LoRA", "lora")):
        command = [sys.executable, __file__, *options, "--one", what]
        cells = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\t")
        print(f"{name:12}" + "".join(f"{cell.strip():>14}" for cell in cells), flush=True)


def measure(arguments: argparse.Namespace) -> None:
    """Prints what `HEADINGS` names, of some steps."""
    torch.set_num_threads(1)
    model = LanguageModel(
        TransformerConfig(
            vocab_size=49_152, hidden_size=576, num_hidden_layers=arguments.layers, num_attention_heads=9,
            num_key_value_heads=3, intermediate_size=1536, max_position_embeddings=arguments.length,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    if arguments.one == "lora":
        attach(model, {"_target_": "peft.LoraConfig", "r": arguments.rank, "lora_alpha": 2 * arguments.rank})
    plan = Optimization(
        AdamWConfig(), ConstantSchedulerConfig(), learning_rate=1e-4, weight_decay=0.0, steps=arguments.rounds,
        batch_size_tokens=1,
    )  # fmt: skip
    module = SupervisedFineTuning(model, plan)
    optimizer = module.configure_optimizers()["optimizer"]
    shape = (arguments.rows, arguments.length)
    tokens = torch.randint(49_152, shape, generator=torch.Generator().manual_seed(0))
    batch = ConversationBatch(tokens, torch.ones(shape, dtype=torch.bool), torch.full(shape[:1], shape[1]))
    fastest = float("inf")
    for _ in range(arguments.rounds):
        started = time.process_time()
        module.loss(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        fastest = min(fastest, time.process_time() - started)
    trained = [one for one in model.parameters() if one.requires_grad]
    states = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    saved = sum(one.nbytes for one in trained)  # an adapter's checkpoint has no frozen weight
    cells = [
        f"{sum(one.numel() for one in trained):,}",
        *(f"{size / 2**20:,.0f} MB" for size in (peak(), states, saved)),
    ]
    print("\t".join([*cells, f"{tokens.numel() / fastest:,.0f}"]))


if __name__ == "__main__":
    main()
