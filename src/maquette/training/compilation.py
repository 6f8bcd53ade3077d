"""torch.compile, block by block, where the run is long enough to repay it.

Blocks are alike, so they compile once and share the code; the model's weights keep their names. Compiled and eager
blocks round differently, so the decision is made once and kept with the run: resuming stays exact.
"""

from collections.abc import Callable

import torch
from torch import nn

from maquette.training.devices import Hardware

WARM_UP_SECONDS = 40.0
"""What compiling forward and backward of a block takes: 12 to 45 s on a processor."""

SAVED_SHARE = 0.1
"""What it saves of a step's time, cautiously: 5 to 27% measured at one to five million parameters."""

CPU_FLOPS_PER_THREAD = 3e10
"""Training speed that run lengths are estimated with. An estimate, not a measurement, so that two runs of the same
settings decide alike and end with the same bits."""

GPU_FLOPS = 1e14


def expected_seconds(flops: float, hardware: Hardware) -> float:
    """Roughly how long `flops` of training take eagerly on the run's devices."""
    speed = CPU_FLOPS_PER_THREAD * hardware.threads if hardware.accelerator == "cpu" else GPU_FLOPS
    return flops / (speed * hardware.world_size)


def wants_compilation(choice: str, flops: float, hardware: Hardware) -> bool:
    """Whether to compile: `on`, `off`, or `auto`, which compiles where twice the warm-up is saved."""
    if choice != "auto":
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
        say(f"torch.compile does not work here ({reason.strip()[:160]}); going on without it")
        return False
    return True


def blocks(core: nn.Module) -> list[nn.Module]:
    """The layers that are alike; none in a recurrent core, whose layers are one kernel."""
    return list(core.get_submodule("layers").children()) if hasattr(core, "layers") else []


def compile_blocks(core: nn.Module) -> None:
    """Compiles every layer of a core in place, for each shape of batch anew (so that resuming within a longer context
    computes what the run before it did)."""
    for block in blocks(core):
        block.compile(dynamic=False)
