"""Memory and time of a step over completions with a vocabulary of 49k: all logits at once, and in chunks.

    python benchmarks/completion_memory.py [--vocab 49152] [--tokens 2048] [--rounds 2]

The model has SmolLM2's width, head and embedding, and two layers. Each figure is of a process of its own: the peak of
its resident memory above what it held before the step, gradients of all weights included, and the least processor
time of its rounds. `dpo` is a forward and backward pass of log-probabilities; `ppo` the same with entropies at a
temperature; `reference` log-probabilities without gradients; `validation` SFT's loss and token accuracy; `kl` that of
two models.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from maquette.data.example_batches import ConversationBatch
from maquette.model import LanguageModel, TransformerConfig, likelihoods
from maquette.objectives.completions import Completion, completion_kl, completion_log_probs, token_statistics
from maquette.objectives.sft import SupervisedFineTuning
from maquette.optimization import Optimization
from maquette.optimization.config import AdamWConfig, ConstantSchedulerConfig

STEPS = ("dpo", "ppo", "reference", "validation", "kl")
PROMPT, COMPLETION = 32, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--tokens", type=int, default=2048, help="of completions in a step")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        measure(*arguments.one, arguments)
        return
    print(f"{arguments.tokens:,} completion tokens, vocabulary {arguments.vocab:,}, float32, one thread")
    print(f"{'step':12}{'all at once':>22}{'in chunks':>22}")
    options = [f"--{name}={getattr(arguments, name)}" for name in ("vocab", "tokens", "rounds")]
    for step in arguments.steps:
        cells = []
        for limit in (str(2**62), "0"):
            command = [sys.executable, __file__, *options, "--one", step, limit]
            cells.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        print(f"{step:12}{cells[0]:>22}{cells[1]:>22}", flush=True)


def measure(step: str, limit: str, arguments: argparse.Namespace) -> None:
    """Prints the peak and the time of one step; `limit`: logits at once, 0 for what is usual."""
    torch.set_num_threads(1)
    if int(limit):
        likelihoods.CPU_LOGITS = likelihoods.CPU_LOGITS_TWICE = int(limit)
    model = LanguageModel(
        TransformerConfig(
            vocab_size=arguments.vocab, hidden_size=576, num_hidden_layers=2, num_attention_heads=9,
            num_key_value_heads=3, intermediate_size=1536, max_position_embeddings=256, tie_word_embeddings=True,
        )
    )  # fmt: skip
    rows = arguments.tokens // COMPLETION
    tokens = torch.randint(arguments.vocab, (rows, PROMPT + COMPLETION), generator=torch.Generator().manual_seed(0))
    loss_mask = torch.zeros(tokens.shape, dtype=torch.bool)
    loss_mask[:, PROMPT:] = True
    batch = ConversationBatch(tokens, loss_mask, torch.full((rows,), tokens.size(1)))
    before, fastest = peak(), float("inf")
    for _ in range(arguments.rounds):
        started = time.process_time()
        run_step(step, model, batch)
        fastest = min(fastest, time.process_time() - started)
        model.zero_grad(set_to_none=True)
    print(f"{(peak() - before) / 2**20:,.0f} MB, {fastest:.2f} s")


def run_step(step: str, model: LanguageModel, batch: ConversationBatch) -> None:
    if step == "dpo":
        completion_log_probs(model, batch)[0].sum().backward()
    elif step == "ppo":
        log_probs, entropy = token_statistics(
            model, model.core(batch.tokens), batch.tokens, batch.mask, temperature=0.7, entropy=True
        )
        assert entropy is not None
        (log_probs.exp() + 0.01 * entropy).sum().backward()
    elif step == "reference":
        with torch.no_grad():
            completion_log_probs(model, batch)
    elif step == "validation":
        plan = Optimization(
            AdamWConfig(), ConstantSchedulerConfig(), learning_rate=1.0, weight_decay=0.0, steps=1, batch_size_tokens=1
        )
        with torch.no_grad():
            SupervisedFineTuning(model, plan).validation_step(_Uncounted(batch), 0)
    else:
        completions = [Completion((), "", tuple(row[:PROMPT]), tuple(row[PROMPT:]), False)
                       for row in batch.tokens.tolist()]  # fmt: skip
        completion_kl(model, model, completions)


class _Uncounted:
    counts = False

    def __init__(self, batch: ConversationBatch) -> None:
        self.batch = batch


def peak() -> int:
    """Bytes of resident memory at most so far."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes


if __name__ == "__main__":
    main()
