"""What this machine does best: the peak of its matrix products, published or measured once and remembered, and the
library that reaches it.

Model FLOPs utilisation (Chowdhery et al. 2022, appendix B) is a run's FLOP/s as a share of it.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from maquette.artifacts.files import locked, write_json
from maquette.model.linear import fastest_backend, may_be_faster
from maquette.tracking.environment import hardware_name
from maquette.training.devices import prepare_process
from maquette.training.job import Job

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
    return float(_remembered(cache, key, lambda: measure_peak(device, dtype)))


def choose_linear_backend(job: Job) -> str:
    """What multiplies this run's matrices (model/linear.py): measured once for each processor, number of threads and
    shape, and remembered beside the peak, so that two runs of the same settings choose alike."""
    core, hardware = job.architecture, job.hardware
    if hardware.accelerator != "cpu" or hardware.precision != "fp32" or not may_be_faster():
        return "torch"
    prepare_process(hardware)
    key = f"{hardware_name()}, {hardware.threads} threads, {job.batch_size_tokens} tokens, {core}"
    return str(_remembered(job.outputs / "machine.json", key, lambda: fastest_backend(core, job.batch_size_tokens)))


def _remembered(cache: Path, key: str, measure: Callable[[], float | str]) -> float | str:
    """The value under `key` in the JSON file `cache`; measured and written there where it is missing."""
    with locked(cache):
        try:
            known = json.loads(cache.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if key not in known:
            known[key] = measure()
            write_json(cache, known)
    return known[key]


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of several products of two large square matrices, by the fastest library that is there."""
    side = _CPU_SIDE if device.type == "cpu" else _GPU_SIDE
    numbers = torch.Generator(device).manual_seed(0)  # its own: the run's random numbers stay where they are
    left, right = (torch.randn(side, side, device=device, dtype=dtype, generator=numbers) for _ in range(2))
    ways = [torch.matmul]
    if device.type == "cpu" and dtype == torch.float32 and may_be_faster():
        ways.append(torch.ops.maquette.onednn_product)
    best, began = float("inf"), time.perf_counter()
    for number in range(_ROUNDS):
        start = _now(device)
        ways[number % len(ways)](left, right)
        best = min(best, _now(device) - start)
        if time.perf_counter() - began > _SECONDS:
            break
    return 2 * side**3 / best


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
