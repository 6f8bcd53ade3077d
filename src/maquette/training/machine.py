"""What this machine does best: the peak of its matrix products, published or measured once and remembered, the library
that reaches it, and whether torch.compile repays itself.

Model FLOPs utilisation (Chowdhery et al. 2022, appendix B) is a run's FLOP/s as a share of the peak. Blocks are alike,
so they compile once and share the code; the model's weights keep their names. Compiled and eager blocks round
differently, so that decision is made once and kept with the run: resuming stays exact.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from maquette.artifacts.files import locked, read_json, write_json
from maquette.artifacts.progress import say
from maquette.data import TokenBatch
from maquette.model import LanguageModel, ScalarModel
from maquette.model.activation_checkpointing import checkpoint_blocks
from maquette.model.linear import fastest_backend, may_be_faster
from maquette.objectives import Pretraining
from maquette.objectives.config import PretrainConfig
from maquette.tracking.environment import hardware_name, processor_name
from maquette.training.devices import Hardware, prepared_process
from maquette.training.job import Job, prepare_optimization
from maquette.training.trainer import quieten

_PUBLISHED: dict[str, dict[str, float]] = {
    # Dense tensor-core FLOP/s by number format, from NVIDIA's data sheets (without sparsity).
    "B200": {"bf16": 2.25e15, "tf32": 1.1e15, "fp32": 7.5e13},
    "H200": {"bf16": 9.89e14, "tf32": 4.94e14, "fp32": 6.7e13},
    "H100 PCIe": {"bf16": 7.56e14, "tf32": 3.78e14, "fp32": 5.1e13},
    "H100": {"bf16": 9.89e14, "tf32": 4.94e14, "fp32": 6.7e13},
    "A100": {"bf16": 3.12e14, "tf32": 1.56e14, "fp32": 1.95e13},
    "L40S": {"bf16": 3.62e14, "tf32": 1.83e14, "fp32": 9.16e13},
    "L4": {"bf16": 1.21e14, "tf32": 6.0e13, "fp32": 3.03e13},
    "A10G": {"bf16": 7.0e13, "tf32": 3.5e13, "fp32": 3.5e13},
    "RTX 4090": {"bf16": 1.652e14, "tf32": 8.26e13, "fp32": 8.26e13},
    "RTX 3090": {"bf16": 7.1e13, "tf32": 3.56e13, "fp32": 3.56e13},
}

_CPU_SIDE, _GPU_SIDE = 1024, 8192
_ROUNDS, _SECONDS = 30, 0.4


WARM_UP_SECONDS = 40.0
"""What compiling forward and backward of a block takes: 12 to 45 s on a processor."""

SAVED_SHARE = 0.1
"""What it saves of a step's time, cautiously: 5 to 27% measured at one to five million parameters."""

CPU_FLOPS_PER_THREAD = 3e10
"""Training speed that run lengths are estimated with. An estimate, not a measurement, so that two runs of the same
settings decide alike and end with the same bits."""

GPU_FLOPS = 1e14


def published_peak(device_name: str, precision: str) -> float | None:
    """FLOP/s of a known GPU in a number format (`fp32`, `tf32`, or one of 16 bits); None for others."""
    kind = precision if precision in ("fp32", "tf32") else "bf16"
    for name, peaks in _PUBLISHED.items():  # the more exact names stand first
        if name in device_name:
            return peaks[kind]
    return None


def matmul_peak(device: torch.device, precision: str, cache: Path | str) -> float:
    """FLOP/s of one device: published, or the best of some large square products, measured once for each processor,
    number of threads and number format and kept in the JSON file `cache`."""
    if device.type == "cuda":
        known = published_peak(torch.cuda.get_device_name(device), precision)
        if known is not None:
            return known
    cache = Path(cache)
    key = f"{hardware_name()}, {torch.get_num_threads()} threads, {device.type} {precision}"
    dtype = torch.float32 if precision in ("fp32", "tf32") else torch.bfloat16
    return _remembered(cache, key, lambda: measure_peak(device, dtype))


def number_format_in_words(hardware: Hardware, device_name: str, peak: float) -> str:
    """What training on a GPU computes in and the FLOP/s which that allows, and what another choice would."""
    text = f"precision={hardware.precision} on {device_name}: matrix products at {peak / 1e12:,.3g} TFLOP/s at most"
    if hardware.precision != "fp32":
        return text
    faster = {kind: published_peak(device_name, kind) for kind in ("tf32", "bf16-mixed")}
    others = [f"precision={kind}: {value / 1e12:,.3g}" for kind, value in faster.items() if value]
    return f"{text}, in float32 without TF32 and without FlashAttention ({'; '.join(others) or 'bf16-mixed is faster'})"


def multiplies_bf16() -> bool:
    """Whether this processor has instructions for products in bf16: without them bf16 is slower than fp32."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def slow_format_in_words(hardware: Hardware) -> str | None:
    """What there is to say of a number format that this processor has no instructions for; None otherwise."""
    if hardware.accelerator != "cpu" or hardware.compute_dtype != torch.bfloat16 or multiplies_bf16():
        return None
    return f"precision={hardware.precision}: this processor has no instructions for bf16, and is slower than in fp32"


def choose_linear_backend(job: Job) -> str:
    """What multiplies this run's matrices (model/linear.py)."""
    if job.hardware.accelerator != "cpu" or job.hardware.precision != "fp32":
        return "torch"
    return fastest_backend(job.spec.architecture, processor_name())


def _remembered(cache: Path, key: str, measure: Callable[[], float]) -> float:
    """The value under `key` in the JSON file `cache`; measured and written there where it is missing."""
    with locked(cache):
        known = read_json(cache)
        if not isinstance(known, dict):
            known = {}
        if key not in known:
            known[key] = measure()
            write_json(cache, known)
    return float(known[key])


def measure_peak(device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of the fastest of several products of two large square matrices, by the fastest library that is there."""
    side = _CPU_SIDE if device.type == "cpu" else _GPU_SIDE
    numbers = torch.Generator(device).manual_seed(0)  # its own: the run's random numbers stay where they are
    left, right = (torch.randn(side, side, device=device, dtype=dtype, generator=numbers) for _ in range(2))
    ways = [torch.matmul]
    if device.type == "cpu" and dtype == torch.float32 and may_be_faster():
        ways.append(torch.ops.maquette.onednn_product)
    best, began = float("inf"), time.perf_counter()
    for number in range(_ROUNDS):
        start = _now(device, clock)
        ways[number % len(ways)](left, right)
        best = min(best, _now(device, clock) - start)
        if time.perf_counter() - began > _SECONDS:
            break
    return 2 * side**3 / best


def measure_bandwidth(device: torch.device) -> float:
    """Bytes a second between memory and the device: the fastest of several copies that no cache holds, read and
    written."""
    source = torch.ones((2**27 if device.type == "cpu" else 2**31) // 4, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(_ROUNDS // 6):
        start = _now(device)
        target.copy_(source)
        best = min(best, _now(device) - start)
    return 2 * source.nbytes / best


def _now(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


# torch.compile --------------------------------------------------------------------------------------------------------


def expected_seconds(flops: float, hardware: Hardware) -> float:
    """Roughly how long `flops` of training take eagerly on the run's devices."""
    speed = CPU_FLOPS_PER_THREAD * hardware.threads if hardware.accelerator == "cpu" else GPU_FLOPS
    return flops / (speed * hardware.world_size)


def wants_compilation(choice: str, flops: float, hardware: Hardware) -> bool:
    """Whether to compile: `on`, `off`, or `auto`, which compiles where twice the warm-up is saved."""
    if choice != "auto" or hardware.tensor_parallel_size > 1:
        return choice == "on"
    return SAVED_SHARE * expected_seconds(flops, hardware) > 2 * WARM_UP_SECONDS


def compiler_works(say: Callable[[str], None]) -> bool:
    """Tries the compiler on a small function; says why where it does not work (no C++ compiler, most often)."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()  # the function below may come out of a cache that outlived its compiler
        torch.compile(lambda x: (x * 2).sin(), dynamic=False)(torch.ones(8))
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        say(f"torch.compile does not work here ({reason.strip()[:160]}); training without it")
        return False
    return True


def blocks(core: nn.Module) -> list[nn.Module]:
    """The layers that are alike; none in a recurrent core, whose layers are one kernel."""
    return list(core.get_submodule("layers").children()) if hasattr(core, "layers") else []


class PreparedBlocks(Callback):
    """Before the first step the blocks of every core in the module (a policy's, and its value function's) get what the
    job says: activation checkpointing, and compilation where the run was begun compiled and still can be. Compiled for
    each shape of batch again, so that resuming within a longer context computes what the run before it did."""

    def __init__(self, job: Job) -> None:
        self.checkpointing, self.compiled = job.activation_checkpointing, job.compiled

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        cores = [one.core for one in pl_module.modules() if isinstance(one, LanguageModel | ScalarModel)]
        alike = [block for core in cores for block in blocks(core)]
        if not checkpoint_blocks(alike, self.checkpointing) and self.checkpointing != "none":
            say(f"activation_checkpointing={self.checkpointing} has no effect: this model has no blocks")
        if self.compiled and compiler_works(say):
            for block in alike:
                block.compile(dynamic=False)


# Speed of training ----------------------------------------------------------------------------------------------------

_TRIAL_STEPS, _TRIAL_SECONDS = 200, 2.0
"""At most so many steps, and none begins after so many seconds."""

_SEQUENCES = 8
"""At most so many sequences a step: a larger batch takes in proportion longer."""


class _Noise:
    """Batches of random tokens. Not a list: Lightning would take each batch for a loader."""

    def __init__(self, shape: tuple[int, int], vocab_size: int) -> None:
        self._shape, self._vocabulary_size = shape, vocab_size

    def __len__(self) -> int:
        return _TRIAL_STEPS

    def __iter__(self) -> Iterator[TokenBatch]:
        numbers = torch.Generator().manual_seed(0)
        domains = torch.zeros(self._shape[0], dtype=torch.int64)
        for _ in range(_TRIAL_STEPS):
            yield TokenBatch(torch.randint(0, self._vocabulary_size, self._shape, generator=numbers), domains)


class _Clock(Callback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Any, *arguments: Any) -> None:
        self.ends.append(_now(trainer.strategy.root_device))
        if len(self.ends) > 2 and self.ends[-1] - self.ends[0] > _TRIAL_SECONDS:
            trainer.should_stop = True


def measure_speed(job: Job) -> float:
    """Training tokens per second of a job's model on this machine, in one process and uncompiled: a few real steps on
    random tokens, through the same Trainer as a run's.

    Only the later half counts: the first steps allocate and warm up. What validation and checkpoints cost is not in it;
    they are a few percent.
    """
    context = job.spec.architecture.max_position_embeddings
    sequences = max(1, min(_SEQUENCES, job.spec.batch_size_tokens // context))
    batches = _Noise((sequences, context + 1), job.spec.architecture.vocab_size)
    with prepared_process(job.hardware):
        model = LanguageModel(job.spec.architecture, seed=0)
        optimization = dataclasses.replace(prepare_optimization(job), batch_size_tokens=sequences * context)
        clock = _Clock()
        quieten()
        precision: Any = job.hardware.lightning_precision
        trainer = Trainer(
            accelerator="cpu" if job.hardware.accelerator == "cpu" else "gpu", devices=1,
            precision=precision, max_steps=_TRIAL_STEPS, callbacks=[clock, PreparedBlocks(job)], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
            gradient_clip_val=1.0,
        )  # fmt: skip
        trainer.fit(Pretraining(model, optimization, PretrainConfig()), batches)
    gaps = [end - start for start, end in zip(clock.ends, clock.ends[1:], strict=False)]
    gaps = sorted(gaps[len(gaps) // 2 :])
    return sequences * context / gaps[len(gaps) // 2]
