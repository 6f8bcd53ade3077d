"""The memory that a training step will need, known before anything is trained: what tensors hold at the fullest moment.

One step of a model of the run's shapes is gone through with tensors that have a shape and no numbers
(`torch._subclasses.FakeTensorMode`): with two blocks and with three, since every further block adds the same. What is
counted is what a profile counts (profiling.Operators), so attention, mixtures of experts, adapters, checkpointing and
optimisers of anybody's are in it. Not counted: what the allocator keeps for itself, and what libraries of a GPU take.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from maquette.artifacts.targets import Node
from maquette.model import LanguageModel, ScalarModel
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.model.adapters import attach
from maquette.model.architecture import CoreConfig
from maquette.model.fused import plain_formulas
from maquette.model.likelihoods import ACCELERATOR_BYTES, next_token_loss, token_statistics
from maquette.optimization.optimizers import build_optimizer
from maquette.tracking.environment import machine_memory
from maquette.training.machine import blocks
from maquette.training.profiling import Operators

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}

PARTS = ("weights", "gradients", "optimiser states", "activations")


@dataclasses.dataclass(frozen=True)
class Step:
    """What decides over a step's memory. `rows` of `tokens` tokens in a forward pass of one process, one of `passes`.
    `loss`: `tokens` (cross-entropy), `log_probs` (of each token, as DPO and PPO need them) or `scalar`; `values`: a
    value function of the same shape is trained beside the model; `frozen`: models that only read along.
    `accelerator`: a processor computes some layers by formulas of its own."""

    architecture: CoreConfig
    rows: int
    tokens: int
    optimizer: Node
    passes: int = 1
    precision: str = "fp32"
    checkpointing: str = "none"
    accelerator: str = "cpu"
    loss: str = "tokens"
    adapter: Any = None
    values: bool = False
    frozen: int = 0
    logits_limit: int | None = None


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes of each of `PARTS` at the fullest moment. `block`, `rest`: bytes of one block's weights, and of those
    outside of blocks, in the number format of products."""

    parts: dict[str, int]
    block: int
    rest: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def sharded(self, processes: int) -> "StepMemory":
        """Of one of so many processes that share the weights out (FSDP2): a slice of everything that belongs to them,
        and whole what is gathered: what is outside of the blocks, the block that computes and the next one."""
        if processes == 1:
            return self
        parts = {name: value if name == "activations" else value // processes for name, value in self.parts.items()}
        parts["gathered weights"] = self.rest + 2 * self.block
        return StepMemory(parts, self.block, self.rest)


def predict(step: Step) -> StepMemory:
    """Of a step after the first, when the optimiser has its states."""
    layers = step.architecture.num_hidden_layers
    if layers <= 3 or not hasattr(step.architecture, "num_attention_heads"):
        moments, block, rest = _moments(step)
    else:
        (few, block, rest), (more, *_) = (_moments(_with_layers(step, number)) for number in (2, 3))
        moments = {
            name: {part: value + (layers - 2) * (more[name][part] - value) for part, value in parts.items()}
            for name, parts in few.items()
        }
    return StepMemory(max(moments.values(), key=lambda parts: sum(parts.values())), block, rest)


def _with_layers(step: Step, number: int) -> Step:
    shape: Any = step.architecture
    return dataclasses.replace(step, architecture=dataclasses.replace(shape, num_hidden_layers=number))


def _moments(step: Step) -> tuple[dict[str, dict[str, int]], int, int]:
    """What each part holds at the fullest moments of forward, of backward in the last block and after it, and of the
    optimiser's step: each grows by the same with every block. And the bytes of a block's weights, and of all others."""
    dtype = _DTYPES.get(step.precision, torch.float32)
    mixed = step.precision.endswith("mixed")
    with contextlib.ExitStack() as stack:
        stack.enter_context(FakeTensorMode())
        stack.enter_context(_AnyNumber())
        if step.accelerator != "cpu":
            stack.enter_context(plain_formulas())
        kind: Any = ScalarModel if step.loss == "scalar" else LanguageModel
        with _made_as(torch.bfloat16 if step.precision == "bf16-true" else torch.float32):
            models: list[Any] = [kind(step.architecture), *([ScalarModel(step.architecture)] if step.values else [])]
        for model in models:
            if step.adapter:
                attach(model, step.adapter)
            checkpoint_blocks(blocks(model.core), step.checkpointing)
        holder = torch.nn.ModuleList(models)
        size = torch.finfo(dtype).bits // 8
        layers = [sum(one.numel() for one in block.parameters()) for block in blocks(models[0].core)]
        inside, whole = sum(layers), sum(one.numel() for one in models[0].parameters())
        optimizers = [build_optimizer(model, step.optimizer, learning_rate=1e-3, weight_decay=0.0) for model in models]
        trained = [one for one in holder.parameters() if one.requires_grad]
        weights = sum(one.nbytes for one in [*holder.parameters(), *holder.buffers()])
        weights += step.frozen * sum(one.nbytes for one in models[0].parameters())
        moments: dict[str, dict[str, int]] = {}
        for number in range(2):  # in the first one the optimiser makes its states
            operators = Operators()
            operators.parameters = trained
            states = _bytes_of([value for one in optimizers for part in _parts(one) for value in part.state.values()])
            operators.state = {"weights": weights, "optimiser states": states}
            last = blocks(models[0].core)[-1:] if blocks(models[0].core) else []
            handles = [block.register_full_backward_hook(lambda *_, o=operators: _take(o, moments, "last block"))
                       for block in last if number]  # fmt: skip
            with operators:
                for _ in range(min(2, step.passes)):
                    with torch.autocast("cpu", torch.bfloat16) if mixed else contextlib.nullcontext():
                        loss = _loss(step, models)
                    if number:
                        _take(operators, moments, "forward")
                    loss.backward()
                    del loss
                    if number:
                        _take(operators, moments, "blocks")
                for one in optimizers:
                    one.step()
                _take(operators, moments, "optimiser")
            for handle in handles:
                handle.remove()
            for one in optimizers:
                one.zero_grad()
        return moments, size * max(layers, default=0), size * (whole - inside)


class _AnyNumber(TorchDispatchMode):
    """What asks a tensor for its number gets 1: some optimisers do, and choose no memory by it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _made_as(dtype: torch.dtype) -> Iterator[None]:
    """Tensors without numbers can't change their format later."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _take(operators: Operators, moments: dict[str, dict[str, int]], name: str) -> None:
    """Notes what was held most since the last moment that was taken."""
    fullest = {part: operators.memory.get(part, 0) for part in PARTS}
    if sum(fullest.values()) >= sum(moments.get(name, {}).values()):
        moments[name] = fullest
    operators.peak, operators.memory = operators.live, {}
    operators.note()


def _loss(step: Step, models: list[Any]) -> Tensor:
    model = models[0]
    inputs = torch.zeros(step.rows, step.tokens, dtype=torch.long)
    hidden = model.core(inputs)
    if step.loss == "scalar":
        return model.score(hidden).squeeze(-1).mean()
    softcap = step.architecture.logit_softcap
    limit = step.logits_limit or (None if step.accelerator == "cpu" else ACCELERATOR_BYTES // 4)
    if step.loss == "tokens":
        return next_token_loss(hidden, model.head_weight, inputs, logit_softcap=softcap, logits_limit=limit)[0]
    log_probs = token_statistics(
        hidden.flatten(0, 1), model.head_weight, inputs.flatten(), logit_softcap=softcap, logits_limit=limit
    )[0]
    loss = log_probs.mean()
    for value in models[1:]:
        loss = loss + value(inputs).mean()
    return loss


def _parts(optimizer: Any) -> Iterator[Any]:
    yield from getattr(optimizer, "pair", [optimizer])


def _bytes_of(states: list[dict[str, Any]]) -> int:
    return sum(value.nbytes for state in states for value in state.values() if isinstance(value, Tensor))


def device_memory(accelerator: str) -> float | None:
    """Bytes of a GPU, or of the machine; None where the GPU is not here."""
    if accelerator == "cpu":
        return machine_memory()
    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None


def remedy(step: Step, room: float, shards: int) -> str:
    """The first of a few changes, the cheapest first, with which a step fits."""
    changes: list[tuple[str, Step]] = [
        ("data.micro_batch_size=1", dataclasses.replace(step, rows=1)),
        ("activation_checkpointing=selective", dataclasses.replace(step, rows=1, checkpointing="selective")),
        ("activation_checkpointing=block", dataclasses.replace(step, rows=1, checkpointing="block")),
    ]
    for setting, changed in changes:
        memory = predict(changed)
        if memory.sharded(shards).total <= room:
            return f"{setting} would" + ("" if changed.checkpointing == "none" else ", with data.micro_batch_size=1")
    for processes in (2, 4, 8, 16, 32, 64, 128):
        if processes > shards and memory.sharded(processes).total <= room:
            return f"trainer=fsdp on {processes} devices would, with activation_checkpointing=block"
    return "use a smaller model or shorter sequences"
