"""Where the time and the memory of a training step go, measured on real steps of a run's own Trainer.

    steps          measured                                            by
    2              nothing: caches and allocators fill up
    num_steps      data, forward, backward, optimiser, logging, loop   Lightning's profiler, which is told each of them
    num_steps      the model's parts, forward and backward             hooks on its modules
    1              operators, as a trace                               torch.profiler
    1              FLOPs, bytes and memory of each operator            a TorchDispatchMode

Times are exclusive: what is measured inside of something else is not counted there too, so the parts sum to the whole.
"""

import contextlib
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from maquette.artifacts.files import atomic_file
from maquette.model import LanguageModel, ScalarModel
from maquette.training.machine import blocks

WARM_UP = 2

LOOP = "Trainer's loop"

_PHASES = (
    # An action of Lightning's that ends, or for callbacks contains, this: the phase.
    ("train_dataloader_next", "data"), ("batch_to_device", "data"), ("on_train_epoch_start", "data"),
    ("training_step", "forward"), ("backward", "backward"),
    ("optimizer_step", "optimiser"), ("configure_gradient_clipping", "optimiser"),
    ("optimizer_zero_grad", "optimiser"), ("lr_scheduler_step", "optimiser"),
    ("on_train_batch_end", "callbacks and logging"), ("[Callback]", "callbacks and logging"),
)  # fmt: skip

REST = "embedding, last norm"
HEAD = "head and loss"
BLOCK = "norms and residuals"


class ExclusiveClock:
    """Seconds by name; of two that are nested the inner one alone runs."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.start()

    def start(self) -> None:
        """From zero."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = self._now()

    def enter(self, name: str) -> None:
        self._charge()
        self._open.append(name)

    def leave(self, name: str) -> None:
        """Of what was entered inside and not left, too."""
        self._charge()
        if name in self._open:
            del self._open[len(self._open) - 1 - self._open[::-1].index(name) :]

    def _charge(self) -> None:
        now = self._now()
        self.seconds[self._open[-1] if self._open else LOOP] += now - self._last
        self._last = now

    def _now(self) -> float:
        if self.device.type == "cuda":  # it computes behind the program's back
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class PhaseProfiler(Profiler):
    """Lightning's profiler of a step's phases."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ExclusiveClock()

    def start(self, action_name: str) -> None:
        if (phase := phase_of(action_name)) is not None:
            self.clock.enter(phase)

    def stop(self, action_name: str) -> None:
        if (phase := phase_of(action_name)) is not None:
            self.clock.leave(phase)

    def summary(self) -> str:
        return ""


def phase_of(action: str) -> str | None:
    """The phase that an action of Lightning's belongs to; None: what it is within."""
    for part, phase in _PHASES:
        if action.endswith(part) or (part.startswith("[") and action.startswith(part) and "batch" in action):
            return phase
    return None


class StepProfile(Callback):
    """Goes through the kinds of measurement, a step after another, and stops the Trainer. Afterwards:

    `phases`, `parts`: mean seconds of a step by name; `operators`: an `Operators`; `top`: the operators of a step that
    take most time themselves, as (name, calls, seconds). `trace`: the file for the trace, in Chrome's format."""

    def __init__(self, profiler: PhaseProfiler, num_steps: int, trace: Path) -> None:
        self.profiler, self.num_steps, self.trace = profiler, num_steps, trace
        self.phases: dict[str, float] = {}
        self.parts: dict[str, float] = {}
        self.top: list[tuple[str, int, float]] = []
        self.operators = Operators()
        self._clock = ExclusiveClock()
        self._open = contextlib.ExitStack()
        self._tracing: Any = None

    @property
    def steps(self) -> int:
        """That it takes in all."""
        return WARM_UP + 2 * self.num_steps + 2

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = 0
        self.profiler.clock.device = self._clock.device = self.operators.device = trainer.strategy.root_device

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._step == self.steps - 1 and self._tracing is not None:
            self._end_trace()
            self.operators.state = state_bytes(trainer, pl_module)
            self.operators.parameters = [one for one in pl_module.parameters() if one.requires_grad]
            self._open.enter_context(self.operators)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # still accumulating
        self._step = trainer.global_step
        timed = WARM_UP + self.num_steps
        if self._step == WARM_UP:
            self.profiler.clock.start()
        elif self._step == timed:
            self.profiler.clock.enter(LOOP)  # what is open has not been charged yet
            self.phases = {name: value / self.num_steps for name, value in self.profiler.clock.seconds.items()}
            self._open.enter_context(eager())
            self._open.enter_context(timed_parts(pl_module, self._clock))
            self._clock.start()
        elif self._step == timed + self.num_steps:
            self._clock.enter(LOOP)
            self.parts = {name: value / self.num_steps for name, value in self._clock.seconds.items()}
            self._open.close()
            self._open.enter_context(eager())
            self._tracing = torch.profiler.profile()
            self._tracing.start()
        elif self._step == self.steps:
            self._open.close()
            trainer.should_stop = True

    def _end_trace(self) -> None:
        self._tracing.stop()
        with atomic_file(self.trace) as temporary:
            self._tracing.export_chrome_trace(str(temporary))
        device = self._clock.device.type == "cuda"
        rows = [
            (one.key, one.count, 1e-6 * (one.self_device_time_total if device else one.self_cpu_time_total))
            for one in self._tracing.key_averages()
        ]
        self.top = sorted(rows, key=lambda row: -row[2])
        self._tracing = None


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """Compiled blocks run eagerly: inside of a compiled one there are no modules and no operators to be seen."""
    torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        torch.compiler.set_stance("default")


@contextlib.contextmanager
def timed_parts(module: LightningModule, clock: ExclusiveClock) -> Iterator[None]:
    """Within the block `clock` has the seconds of the model's parts, `forward` and `backward`.

    Gradients reach a part through the hooks that PyTorch has for it. What the backward pass computes before it comes to
    the core is the head's and the loss's; what it computes outside of the blocks after that, the embedding's.
    """
    handles: list[Any] = []
    backwards = [False]

    def watch(part: nn.Module, name: str, *, ends: bool = True) -> None:
        def name_now() -> str:
            return f"{name}, {'backward' if backwards[0] else 'forward'}"

        handles.append(part.register_forward_pre_hook(lambda *_: clock.enter(name_now())))
        handles.append(part.register_forward_hook(lambda *_: clock.leave(name_now())))
        handles.append(part.register_full_backward_pre_hook(lambda *_: clock.enter(f"{name}, backward")))
        if ends:
            handles.append(part.register_full_backward_hook(lambda *_: clock.leave(f"{name}, backward")))

    for model in module.modules():
        if not isinstance(model, LanguageModel | ScalarModel):
            continue
        watch(model.core, REST, ends=False)  # its inputs are tokens, which no gradient reaches
        for block in blocks(model.core):
            watch(block, BLOCK)
            for name, part in block.named_children():
                if not name.endswith("norm"):
                    watch(part, name.replace("_", "-"))
    step, backward = module.training_step, module.backward

    def training_step(*arguments: Any, **named: Any) -> Any:
        clock.enter(f"{HEAD}, forward")
        try:
            return step(*arguments, **named)
        finally:
            clock.leave(f"{HEAD}, forward")

    def timed_backward(*arguments: Any, **named: Any) -> None:
        clock.enter(f"{HEAD}, backward")
        backwards[0] = True
        try:
            backward(*arguments, **named)
        finally:
            backwards[0] = False
            clock.leave(f"{HEAD}, backward")

    module.training_step, module.backward = training_step, timed_backward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.training_step, module.backward
        for handle in handles:
            handle.remove()


class Operators(TorchDispatchMode):
    """Every operator of a step: how often, how long, its FLOPs and the bytes of its inputs and outputs; and what memory
    tensors held when they held most. `state`: bytes that were there before the step, by what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.calls: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.state: dict[str, int] = {}
        self.parameters: list[nn.Parameter] = []
        self.memory: dict[str, int] = {}
        self._known: dict[int, Any] = {}
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        start = self._now()
        result = func(*args, **kwargs)
        seconds = self._now() - start
        inputs, outputs = (
            [one for one in tree_leaves(tree) if isinstance(one, Tensor)] for tree in ((args, kwargs), result)
        )
        if not func.is_view:
            name = func._schema.name.partition("::")[2]
            self.calls[name] += 1
            self.seconds[name] += seconds
            self.bytes[name] += sum(one.numel() * one.element_size() for one in [*inputs, *outputs])
            self.flops[name] += count_flops(func, args, kwargs, result, outputs)
        there = {one.untyped_storage()._cdata for one in inputs}
        for one in outputs:
            if one.untyped_storage()._cdata not in there:
                self._keep(one)
        return result

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            if self._known.pop(key, None) is not None:
                self.live -= size

        self._known[key] = weakref.ref(storage, gone)
        self.live += size
        if self.live > self.peak:
            self.note()

    def note(self) -> None:
        """This moment is the fullest."""
        self.peak = self.live
        gradients = sum(one.grad.nbytes for one in self.parameters if one.grad is not None)
        self.memory = self.state | {"gradients": gradients, "activations": self.live - gradients}


def count_flops(func: Any, args: Any, kwargs: Any, result: Any, outputs: list[Tensor]) -> int:
    """Of products and attention exactly; of other operators one for each number that comes out."""
    name = func._schema.name
    if "linear_pointwise" in name or name.startswith("maquette::onednn"):
        return 2 * args[0].numel() * int(args[1].size(0))
    if (count := flop_registry.get(func.overloadpacket)) is not None:
        return int(count(*args, **kwargs, out_val=result))
    if "scaled_dot_product" in name:  # two products forward; backward four, and the scores once more
        backward = "backward" in name
        query, key = (args[1], args[2]) if backward else (args[0], args[1])
        return (10 if backward else 4) * query.numel() * int(key.size(-2))
    return sum(one.numel() for one in outputs)


def state_bytes(trainer: Trainer, module: nn.Module) -> dict[str, int]:
    """Of weights (with buffers) and of the optimiser's states."""
    weights = sum(one.nbytes for one in [*module.parameters(), *module.buffers()])
    states = sum(
        value.nbytes
        for optimizer in trainer.optimizers
        for part in getattr(optimizer, "pair", [optimizer])
        for values in part.state.values()
        for value in tree_leaves(values)
        if isinstance(value, Tensor)
    )
    return {"weights": weights, "optimiser states": states}
