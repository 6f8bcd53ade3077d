"""What a GPU does with this project, in at most eight minutes: tests, training, attention, generation, preferences and
checkpoints.

    python benchmarks/gpu.py [--outputs outputs/gpu]      # run it again to go on with the parts that are missing
    python benchmarks/gpu.py --smoke                      # the same on a CPU with tiny shapes, in under a minute

Each part has a time limit of its own and runs in a process of its own; what it measured is in parts.jsonl, and
table.md and table.csv, with the hardware's name, are written from that after each part. The first part runs the tests
that are marked `cuda`. Peers train in the same run: a Llama of the same shape in plain PyTorch under a bare loop, as
litgpt and nanochat write one (compiled as a whole, plain cross-entropy), and litgpt's own where it is installed. MFU is
against the published peak of the GPU, or on a CPU against its measured one. Never run on a GPU so far.
"""

import argparse
import contextlib
import csv
import functools
import io
import json
import multiprocessing
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from maquette.artifacts.files import write_text
from maquette.model import LanguageModel, ScalarModel, TransformerConfig, count_parameters, training_flops
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.model.generation import generate
from maquette.model.likelihoods import next_token_loss, token_statistics
from maquette.objectives.losses import dpo_loss, ppo_policy_loss, ppo_value_loss
from maquette.tracking.environment import hardware_name
from maquette.training.checkpoint_io import AtomicCheckpointIO
from maquette.training.machine import matmul_peak

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]

SHAPES = {
    "124M": (TransformerConfig(50304, 768, 12, 12, intermediate_size=2048, max_position_embeddings=1024), 16),
    "1B": (TransformerConfig(50304, 2048, 20, 16, intermediate_size=5632, max_position_embeddings=2048), 4),
}
TINY = (TransformerConfig(256, 32, 2, 2, intermediate_size=64, max_position_embeddings=32), 2)

SMOKE = False


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() and not SMOKE else "cpu")


def shape(name: str) -> tuple[TransformerConfig, int]:
    """The architecture, and sequences of a step."""
    return TINY if SMOKE else SHAPES[name]


def seconds_of(work: Callable[[], Any], repeats: int = 10) -> float:
    """Median, after two calls that warm up and compile."""
    times = []
    for number in range(2 + (1 if SMOKE else repeats)):
        start = time.perf_counter()
        work()
        if device().type == "cuda":
            torch.cuda.synchronize()
        if number > 1:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def bf16() -> torch.autocast:
    return torch.autocast(device().type, torch.bfloat16)


# Training -------------------------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, inner, self.heads = config.hidden_size, config.inner_width, config.num_attention_heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norms[0](x)).chunk(3, dim=-1)
        )
        queries, keys = (_turned(one, cosine, sine) for one in (queries, keys))
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        normed = self.norms[1](x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1).to(x.dtype)


class PlainLlama(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        half = config.width_of_head // 2
        angles = torch.outer(torch.arange(config.max_position_embeddings), 10_000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, tokens: Tensor) -> Tensor:
        cosine, sine = (self.get_buffer(name)[: tokens.size(1)] for name in ("cosine", "sine"))
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, cosine, sine)
        return self.head(self.norm(x))


def contenders(
    config: TransformerConfig, kind: str
) -> Iterator[tuple[str, nn.Module, Callable[[Tensor, Tensor], Tensor]]]:
    """Name, model, and loss of inputs and targets; one at a time in memory."""
    if kind != "peers":
        model: Any = LanguageModel(config).to(device())
        checkpoint_blocks(model.core.layers, kind)
        for layer in model.core.layers:
            layer.compile(dynamic=False) if not SMOKE else None
        yield (
            f"maquette, checkpointing {kind}",
            model,
            lambda inputs, targets: next_token_loss(model.core(inputs), model.head_weight, targets)[0],
        )
        return
    peers: dict[str, nn.Module] = {"plain PyTorch": PlainLlama(config)}
    if not SMOKE:
        with contextlib.suppress(ImportError):  # a peer that is not installed
            from train_speed import litgpt

            peers["litgpt"] = litgpt(config, False)[0]
    for name, peer in peers.items():
        logits = peer.to(device()) if SMOKE else torch.compile(peer.to(device()))
        yield name, peer, functools.partial(plain_loss, logits)


def plain_loss(logits: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits(inputs).float().flatten(0, 1), targets.flatten())


def train(size: str, kind: str) -> list[Row]:
    config, batch = shape(size)
    context = config.max_position_embeddings
    flops = training_flops(config, batch * context, context).total
    with tempfile.TemporaryDirectory() as folder:
        peak = matmul_peak(device(), "bf16-mixed", Path(folder) / "peak.json")
    rows = []
    for name, model, loss in contenders(config, kind):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        tokens = torch.randint(config.vocab_size, (batch, context + 1), device=device())

        def step(
            model: nn.Module = model, loss: Any = loss, optimizer: Any = optimizer, tokens: Tensor = tokens
        ) -> None:
            optimizer.zero_grad()
            with bf16():
                value = loss(tokens[:, :-1], tokens[:, 1:])
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

        seconds = seconds_of(step)
        row = {"what": f"train {size}", "how": name, "tokens_per_second": batch * context / seconds,
               "mfu": flops / seconds / peak, "ms": 1e3 * seconds}  # fmt: skip
        rows.append(row | ({"peak_gb": torch.cuda.max_memory_allocated() / 1e9} if device().type == "cuda" else {}))
    return rows


# Other parts ----------------------------------------------------------------------------------------------------------


def marked_tests() -> list[Row]:
    """The tests marked `cuda`, which a CPU skips."""
    files = [str(one) for one in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in one.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", *(["--collect-only"] if SMOKE else []), *files]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line.strip("= ") for line in done.stdout.splitlines()] if files else ["there are none"]
    kinds = ("passed", "failed", "collected", "none", "no tests")
    summary = [line for line in lines if any(kind in line for kind in kinds)]
    return [{"what": "tests marked cuda", "how": (summary or [f"pytest ended with {done.returncode}"])[-1],
             "ms": 1e3 * (time.perf_counter() - start)}]  # fmt: skip


def attention() -> list[Row]:
    rows = []
    backends = [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
    for length in (64,) if SMOKE else (1024, 4096, 8192):
        query = torch.randn(2, 8, length, 64, device=device(), dtype=torch.bfloat16, requires_grad=True)
        for backend in backends:

            def step(query: Tensor = query, backend: SDPBackend = backend) -> None:
                with sdpa_kernel(backend):
                    F.scaled_dot_product_attention(query, query, query, is_causal=True).sum().backward()

            try:
                seconds = seconds_of(step)
            except RuntimeError:  # not for this device, or not enough memory
                continue
            rows.append({"what": f"attention, {length} tokens", "how": backend.name.lower(), "ms": 1e3 * seconds})
    return rows


def generation() -> list[Row]:
    config, _ = shape("124M")
    model = LanguageModel(config).to(device()).eval()
    batch, new = (2, 8) if SMOKE else (64, 128)
    prompts = torch.randint(config.vocab_size, (batch, 16)).tolist()
    with bf16():
        seconds = seconds_of(lambda: generate(model, prompts, max_tokens=new, stop_ids=()), repeats=3)
    return [{"what": "generation 124M", "how": f"batch {batch}", "tokens_per_second": batch * new / seconds,
             "ms": 1e3 * seconds}]  # fmt: skip


def preferences() -> list[Row]:
    """A DPO step (chosen and rejected), and a PPO step of a policy and a value function, on random completions."""
    config, batch = shape("124M")
    model, value = LanguageModel(config).to(device()), ScalarModel(config).to(device())
    tokens = torch.randint(config.vocab_size, (2 * batch, config.max_position_embeddings), device=device())
    mask = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
    both = [*model.parameters(), *value.parameters()]
    optimizer = torch.optim.AdamW(both, lr=1e-5, fused=True)

    def log_probs() -> Tensor:
        hidden = model.core(tokens[:, :-1])
        return token_statistics(hidden.flatten(0, 1), model.head_weight, tokens[:, 1:].flatten())[0].view(mask.shape)

    def dpo() -> Tensor:
        chosen, rejected = log_probs().sum(1).chunk(2)
        return dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.1)[0].mean()

    def ppo() -> Tensor:
        now, values = log_probs(), value(tokens[:, :-1])
        old, advantages = now.detach(), torch.ones_like(now)
        policy_loss = ppo_policy_loss(now, old, advantages, mask)[0]
        return policy_loss + 0.1 * ppo_value_loss(values, values.detach(), advantages, mask)[0]

    rows = []
    for name, loss in (("DPO", dpo), ("PPO", ppo)):

        def step(loss: Callable[[], Tensor] = loss) -> None:
            optimizer.zero_grad()
            with bf16():
                total = loss()
            total.backward()
            optimizer.step()

        seconds = seconds_of(step, repeats=5)
        speed = tokens.numel() / seconds
        rows.append(
            {"what": f"{name} step 124M", "how": f"{2 * batch} rows", "tokens_per_second": speed, "ms": 1e3 * seconds}
        )
    return rows


def checkpoints() -> list[Row]:
    """How long training stands still for a checkpoint of weights and AdamW's states."""
    config, _ = shape("1B")
    state = {f"{copy}": torch.zeros(count_parameters(config).total, device=device()) for copy in range(3)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        AtomicCheckpointIO().save_checkpoint({"state": state}, Path(folder) / "checkpoint")
        seconds = time.perf_counter() - start
    size = sum(one.nbytes for one in state.values())
    return [{"what": "checkpoint 1B", "how": f"{size / 1e9:.3g} GB, blocking", "ms": 1e3 * seconds}]


PARTS: dict[str, tuple[int, Callable[[], list[Row]]]] = {
    "tests": (90, marked_tests),
    **{f"train 124M {kind}": (40, functools.partial(train, "124M", kind)) for kind in ("none", "peers")},
    **{
        f"train 1B {kind}": (50, functools.partial(train, "1B", kind))
        for kind in ("none", "selective", "block", "peers")
    },
    "attention": (20, attention),
    "generation": (25, generation),
    "preferences": (40, preferences),
    "checkpoints": (25, checkpoints),
}
"""Seconds at most, and what is done: 480 in all."""


def work(name: str, smoke: bool, queue: Any) -> None:
    global SMOKE
    SMOKE = smoke
    queue.put(PARTS[name][1]())


def measured(name: str, smoke: bool) -> list[Row]:
    """The rows of a part, in a process that is ended at its limit; a smoke test needs none."""
    limit = PARTS[name][0]
    if smoke:
        return PARTS[name][1]()
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    process = context.Process(target=work, args=(name, smoke, queue))
    process.start()
    try:
        end = time.monotonic() + limit
        while process.is_alive() and time.monotonic() < end and queue.empty():
            process.join(0.2)
        if not queue.empty():
            return list(queue.get())
        why = f"over its {limit} s" if process.is_alive() else f"ended with exit code {process.exitcode}"
        return [{"what": name, "how": why}]
    finally:
        process.kill()


def main() -> None:
    global SMOKE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--outputs", default="outputs/gpu")
    arguments = parser.parse_args()
    SMOKE = arguments.smoke
    if not SMOKE and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no GPU here. --smoke runs every part on a CPU with tiny shapes.")
    folder = Path(arguments.outputs)
    folder.mkdir(parents=True, exist_ok=True)
    hardware = f"{hardware_name()}, torch {torch.__version__}, {platform.system()}" + (", smoke test" if SMOKE else "")
    log = folder / "parts.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    entries = [one for one in entries if one["hardware"] == hardware]
    for name in PARTS:
        if any(one["part"] == name for one in entries):
            continue
        print(f"{name} ...", flush=True)
        entries.append({"part": name, "hardware": hardware, "rows": measured(name, SMOKE)})
        write_text(log, "".join(json.dumps(one) + "\n" for one in entries))
        rows = [row for one in entries for row in one["rows"]]
        write_tables(folder, hardware, rows)
    print((folder / "table.md").read_text())


def write_tables(folder: Path, hardware: str, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    shown = [[f"{row[key]:.4g}" if isinstance(row.get(key), float) else str(row.get(key, "")) for key in columns]
             for row in rows]  # fmt: skip
    lines = [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *shown)]
    write_text(folder / "table.md", f"{hardware}\n\n" + "\n".join(lines) + "\n")
    text = io.StringIO()
    csv.writer(text).writerows([["hardware", *columns], *([hardware, *cells] for cells in shown)])
    write_text(folder / "table.csv", text.getvalue())


if __name__ == "__main__":
    main()
