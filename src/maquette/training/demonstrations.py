"""What fusing operators, tiling attention, and smaller number formats are worth on this machine: each measured as the
same computation done in two or three ways, which take turns, so that whatever else the machine does falls on all.

    fused_and_unfused         one pass over memory for several operators, or one operator after another
    tiled_and_materialised    attention by blocks that stay in cache (Dao et al. 2022, "FlashAttention"), or through a
                              matrix of all scores
    training_by_precision     the same steps on the same batches in fp32, bf16-mixed and bf16-true

`python benchmarks/demonstrations.py` prints and draws all three.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maquette.model import LanguageModel, TransformerConfig
from maquette.model.fused import plain_formulas
from maquette.model.likelihoods import next_token_loss
from maquette.training.machine import multiplies_bf16 as multiplies_bf16
from maquette.training.profiling import Operators

Ways = Mapping[str, Callable[..., Tensor]]
"""The same function of tensors, computed in several ways, by their names."""


@dataclass(frozen=True)
class Cost:
    """Of one forward and backward pass: processor seconds in each round (of all threads; a machine that is busy with
    other things does not change them), operators called, bytes that they read and wrote, and the most bytes that its
    results held at once."""

    seconds: tuple[float, ...]
    calls: int
    bytes: int
    peak: int

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    def ratio(self, other: "Cost") -> tuple[float, float, float]:
        """How many times as long `other` takes: median, lowest and highest of the rounds' own ratios."""
        ratios = sorted(b / a for a, b in zip(self.seconds, other.seconds, strict=True))
        return statistics.median(ratios), ratios[0], ratios[-1]


def measure_ways(
    ways: Ways, inputs: Sequence[Tensor], *, rounds: int = 7, min_seconds: float = 0.02
) -> dict[str, Cost]:
    """What a forward and backward pass of each way costs for `inputs`, which want gradients. A round of a way lasts at
    least `min_seconds`: short passes are repeated."""
    repeats = {name: max(1, math.ceil(min_seconds / _seconds(way, inputs))) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(_seconds(way, inputs, repeats[name]))
    costs = {}
    for name, way in ways.items():
        with Operators() as counted:
            _pass(way, inputs)
        costs[name] = Cost(tuple(seconds[name]), sum(counted.calls.values()), sum(counted.bytes.values()), counted.peak)
    return costs


def _seconds(way: Callable[..., Tensor], inputs: Sequence[Tensor], repeats: int = 1) -> float:
    start = time.process_time()
    for _ in range(repeats):
        _pass(way, inputs)
    return (time.process_time() - start) / repeats


def _pass(way: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    result = way(*inputs)
    result.backward(torch.ones_like(result))
    for one in inputs:
        one.grad = None


# Fusion ---------------------------------------------------------------------------------------------------------------

UNFUSED, FUSED = "one after another", "fused"


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks and Gimpel 2016, "Gaussian Error Linear Units"), an operator for each sign."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def softmax(x: Tensor) -> Tensor:
    """Over the last dimension."""
    powers = torch.exp(x - x.amax(dim=-1, keepdim=True))
    return powers / powers.sum(dim=-1, keepdim=True)


def fusion_ways(config: TransformerConfig, batch: int, length: int) -> dict[str, tuple[Ways, list[Tensor]]]:
    """Parts of a model of this shape, each unfused and fused, and their inputs."""
    model = LanguageModel(config)
    numbers = torch.Generator().manual_seed(0)
    block: Any = next(model.core.get_submodule("layers").children())

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=numbers).requires_grad_()

    def unfused(part: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*inputs: Tensor) -> Tensor:
            with plain_formulas():
                return part(*inputs)

        return run

    def with_plain_loss(hidden: Tensor) -> Tensor:
        return F.cross_entropy(model.logits(hidden).flatten(0, 1), targets.flatten())

    targets = torch.randint(config.vocab_size, (batch, length), generator=numbers)
    hidden, inner = random(batch, length, config.hidden_size), random(batch, length, config.inner_width)
    scores = random(batch, config.num_attention_heads, length, length)
    norm, feed_forward = block.attention_norm, block.feed_forward
    return {
        "GELU": ({UNFUSED: gelu, FUSED: lambda x: F.gelu(x, approximate="tanh")}, [inner]),
        "softmax": ({UNFUSED: softmax, FUSED: lambda x: torch.softmax(x, dim=-1)}, [scores]),
        "RMSNorm": ({UNFUSED: unfused(norm), FUSED: norm}, [hidden]),
        "SwiGLU": ({UNFUSED: unfused(feed_forward), FUSED: feed_forward}, [hidden]),
        "head and loss": (
            {UNFUSED: with_plain_loss, FUSED: lambda x: next_token_loss(x, model.head_weight, targets)[0]}, [hidden]
        ),
    }  # fmt: skip


def fused_and_unfused(
    config: TransformerConfig, *, batch: int = 8, length: int = 256, rounds: int = 7
) -> dict[str, dict[str, Cost]]:
    """By the name of a part: what it costs `UNFUSED` and `FUSED`."""
    return {
        name: measure_ways(ways, inputs, rounds=rounds)
        for name, (ways, inputs) in fusion_ways(config, batch, length).items()
    }


# Tiling ---------------------------------------------------------------------------------------------------------------

MATERIALISED, TILED = "all scores in memory", "by blocks"


def materialised_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of `(B, H, T, W)` with all scores `(B, H, T, T)` in memory (Vaswani et al. 2017, equation 1)."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return torch.softmax(scores.masked_fill(ahead, -torch.inf), dim=-1) @ value


def tiled_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same by PyTorch's kernel, which never holds more than a block of scores."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def tiled_and_materialised(
    lengths: Sequence[int], *, heads: int = 4, head_dim: int = 64, batch: int = 1, rounds: int = 5
) -> dict[int, dict[str, Cost]]:
    """By sequence length: what attention costs `MATERIALISED` and `TILED`."""
    costs = {}
    for length in lengths:
        numbers = torch.Generator().manual_seed(length)
        shape = (3, batch, heads, length, head_dim)
        inputs = [one.requires_grad_() for one in torch.randn(shape, generator=numbers).unbind()]
        costs[length] = measure_ways(
            {MATERIALISED: materialised_attention, TILED: tiled_attention}, inputs, rounds=rounds
        )
    return costs


# Number formats -------------------------------------------------------------------------------------------------------

PRECISIONS = ("fp32", "bf16-mixed", "bf16-true")


@dataclass
class PrecisionResult:
    """Training in one number format: the loss before each step, the processor seconds of each, and the bytes that a
    step holds at its fullest moment: weights, gradients, optimiser states, activations."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)


def training_by_precision(
    config: TransformerConfig,
    batches: Sequence[Tensor],
    *,
    learning_rate: float = 1e-3,
    precisions: Sequence[str] = PRECISIONS,
) -> dict[str, PrecisionResult]:
    """Trains a model of this shape on `batches` of tokens `(B, T + 1)` in each number format, from the same weights, by
    AdamW, and by turns. In bf16-mixed weights and optimiser are fp32, and autocast rounds the products' operands
    (Micikevicius et al. 2018, "Mixed Precision Training"); in bf16-true all of it is bf16."""
    results = {name: PrecisionResult() for name in precisions}
    models: dict[str, nn.Module] = {}
    steps = {}
    for name in precisions:
        model = LanguageModel(config).to(torch.bfloat16 if name == "bf16-true" else torch.float32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.95), fused=True)
        models[name], steps[name] = model, _training_step(model, optimizer, mixed=name == "bf16-mixed")
    for batch in batches:
        for name, result in results.items():
            start = time.process_time()
            result.losses.append(steps[name](batch))
            result.seconds.append(time.process_time() - start)
    for name, result in results.items():
        operators = Operators()
        operators.parameters = [*models[name].parameters()]
        weights = sum(one.nbytes for one in operators.parameters)
        operators.state = {"weights": weights, "optimiser states": 2 * weights}
        with operators:
            steps[name](batches[-1])
        result.memory = operators.memory
    return results


def _training_step(model: LanguageModel, optimizer: torch.optim.Optimizer, *, mixed: bool) -> Callable[[Tensor], float]:
    def step(batch: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext():
            loss, _ = next_token_loss(model.core(batch[:, :-1]), model.head_weight, batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step
