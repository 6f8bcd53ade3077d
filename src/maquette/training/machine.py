"""What this machine could do at best: the peak of its matrix products, published or measured once and remembered.

Model FLOPs utilisation (Chowdhery et al. 2022, appendix B) is a run's FLOP/s as a share of it.
"""

import json
import time
from pathlib import Path

import torch
from torch import Tensor

from maquette.artifacts.files import locked, write_json
from maquette.tracking.environment import hardware_name

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
    with locked(cache):
        try:
            peaks = json.loads(cache.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            peaks = {}
        if key not in peaks:
            peaks[key] = measure_peak(device, torch.float32 if precision in ("fp32", "tf32") else torch.bfloat16)
            write_json(cache, peaks)
    return float(peaks[key])


def measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of several products of two large square matrices."""
    side = _CPU_SIDE if device.type == "cpu" else _GPU_SIDE
    numbers = torch.Generator(device).manual_seed(0)  # its own: the run's random numbers stay where they are
    left, right = (torch.randn(side, side, device=device, dtype=dtype, generator=numbers) for _ in range(2))
    best, began = float("inf"), time.perf_counter()
    for _ in range(_ROUNDS):
        start = _now(device)
        _product(left, right)
        best = min(best, _now(device) - start)
        if time.perf_counter() - began > _SECONDS:
            break
    return 2 * side**3 / best


def _product(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
