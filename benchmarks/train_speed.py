"""Training speed against litgpt and transformers: the same shapes, numerics and threads, interleaved in one run.

    python benchmarks/train_speed.py [--sizes 1m 5m] [--modes eager compiled] [--threads 1] [--rounds 9]

Each contender is a Llama (RMSNorm, rotary, SwiGLU, untied head) in float32 under one bare loop: forward, mean
cross-entropy, backward, gradient clipping, fused AdamW. Contenders take turns within every round, so that whatever
else the machine does hits all of them; figures are medians over rounds, ratios are medians of the rounds' own ratios.
Peers get plain `F.cross_entropy`, and in compiled mode one graph of model and loss; this project gets what its own
training uses: by-hand backward passes in eager mode, compiled blocks, the matrix library that is fastest here, a
chunked loss. Needs the peers of `peers.txt`: `make bench` installs them.

The column `of peak` is a step's matrix products, counted by shapes, over the products that this thread could have made
in its time: large square ones are timed in every round, too. One over a peer's share is the ratio that nobody passes.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maquette.model import LanguageModel, TransformerConfig, next_token_loss
from maquette.model.core_config import training_flops
from maquette.model.linear import current_backend, fastest_backend, use_backend
from maquette.tracking.environment import processor_name
from maquette.training.machine import measure_peak

BATCH, CONTEXT, VOCABULARY = 16, 256, 4096
SIZES = {
    "1m": TransformerConfig(
        VOCABULARY, hidden_size=128, num_hidden_layers=5, num_attention_heads=4, intermediate_size=352
    ),
    "5m": TransformerConfig(
        VOCABULARY, hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=704
    ),
}
Loss = Callable[[Tensor, Tensor], Tensor]


def maquette(config: TransformerConfig, compiled: bool) -> tuple[nn.Module, Loss]:
    use_backend(fastest_backend(config, processor_name()))
    model = LanguageModel(config)
    if compiled:
        for layer in model.core.layers:
            layer.compile()
    return model, lambda tokens, targets: next_token_loss(model.core(tokens), model.head_weight, targets)[0]


def litgpt(config: TransformerConfig, compiled: bool) -> tuple[nn.Module, Loss]:
    from litgpt.config import Config
    from litgpt.model import GPT

    model = GPT(
        Config(
            block_size=CONTEXT,
            padded_vocab_size=config.vocab_size,
            n_layer=config.num_hidden_layers,
            n_head=config.num_attention_heads,
            n_embd=config.hidden_size,
            intermediate_size=config.inner_width,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
        )
    )
    return model, with_plain_loss(model, compiled)


def transformers(config: TransformerConfig, compiled: bool) -> tuple[nn.Module, Loss]:
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.inner_width,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            max_position_embeddings=CONTEXT,
            rms_norm_eps=config.normalization_eps,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )
    return model, with_plain_loss(lambda tokens: model(tokens).logits, compiled)


def with_plain_loss(logits: Callable[[Tensor], Tensor], compiled: bool) -> Loss:
    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits(tokens).flatten(0, 1), targets.flatten())

    return torch.compile(loss) if compiled else loss


CONTENDERS = {"maquette": maquette, "litgpt": litgpt, "transformers": transformers}


@dataclasses.dataclass
class Contender:
    """A model in its loop; `step` trains on one batch and gives the seconds it took."""

    model: nn.Module
    loss: Loss
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        for parameter in self.model.parameters():  # the same scale for all, so that no one meets denormal numbers
            nn.init.ones_(parameter) if parameter.ndim == 1 else nn.init.normal_(parameter, std=0.02)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.99), fused=True)

    def step(self, tokens: Tensor) -> float:
        start = self.clock()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return self.clock() - start


def measure(
    size: str, mode: str, rounds: int, steps: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds a step of each contender, by round, and the FLOP/s of large products, by round."""
    contenders = {name: Contender(*build(SIZES[size], mode == "compiled"), clock) for name, build in CONTENDERS.items()}
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks = []
    for number in range(rounds + 1):
        tokens = torch.randint(VOCABULARY, (BATCH, CONTEXT + 1), generator=generator)
        for name, contender in contenders.items():
            taken = [contender.step(tokens) for _ in range(steps)]
            if number:  # the first round warms up and compiles
                seconds[name].append(statistics.median(taken))
        if number:
            peaks.append(measure_peak(torch.device("cpu"), torch.float32, clock))
        print(f"\r{size} {mode}: round {number} of {rounds}", end="", flush=True)
    print("\r", end="")
    return seconds, peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--modes", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="steps of each contender in a round")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: on a machine that is not idle")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    print(
        f"{processor_name()}, {arguments.threads} thread(s), torch {torch.__version__}, float32, "
        f"batch {BATCH} x {CONTEXT}"
    )
    print(f"{'size':5}{'mode':10}{'contender':14}{'tokens/s':>10}{'ratio to it: median':>21}{'best':>8}{'of peak':>9}")
    for size in arguments.sizes:
        for mode in arguments.modes:
            torch._dynamo.reset()
            seconds, peaks = measure(size, mode, arguments.rounds, arguments.steps, clock)
            flops = training_flops(SIZES[size], BATCH * CONTEXT, CONTEXT).total
            ours = seconds["maquette"]
            print(f"{size:5}{mode:10}matrix products of maquette: {current_backend()}")
            for name, theirs in seconds.items():
                speed = BATCH * CONTEXT / statistics.median(theirs)
                ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
                share = statistics.median(flops / (taken * top) for taken, top in zip(theirs, peaks, strict=True))
                best = min(theirs) / min(ours)
                print(f"{size:5}{mode:10}{name:14}{speed:10.0f}{ratio:21.2f}{best:8.2f}{share:9.0%}")


if __name__ == "__main__":
    main()
