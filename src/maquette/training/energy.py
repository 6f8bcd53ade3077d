"""Energy and carbon of a run: measured where the machine tells, estimated otherwise, and said which.

- Processor, measured: the packages' counters of Linux's powercap (RAPL), times this process' share of the time that
  the processor was busy. They can often be read by root alone. Estimated: processor time x `CORE_WATTS`.
- GPU, measured: NVML's counter of the device, all that it drew while the run trained. Estimated: time x `GPU_WATTS`.
  (Never run on a GPU.)

Of several processes the first measures its own part and counts it for each. Free of torch, except where a GPU is read.

Memory, network and the building are not in it: a data centre takes some 10% more (`plan overhead=`).
"""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORE_WATTS = 6.0
"""Of a core at work: thermal design power of today's server processors over their cores, 4 to 8 W."""

GPU_WATTS = 400.0
"""Of a GPU at work, where it does not tell: an A100's thermal design power."""

KILOGRAMS_PER_KWH = 0.4
"""CO2e of a kWh, about the world's average of recent years; `plan kilograms_per_kwh=` takes another."""

_POWERCAP, _STAT = Path("/sys/class/powercap"), Path("/proc/stat")
_JOULES = 3.6e6  # in a kWh


@dataclass(frozen=True)
class Counter:
    """A counter of energy: joules so far, and after how many it begins again (infinity: never). `share`: of what it
    counts the part that is ours between two readings."""

    name: str
    joules: Callable[[], float]
    range: float = float("inf")
    share: Callable[[], float] = lambda: 1.0


class EnergyMeter:
    """Adds up counters from `start` on, each time `read` is called: `joules`, and what they are called, `sources`."""

    def __init__(self, counters: list[Counter]) -> None:
        self.counters, self.joules = counters, 0.0
        self.sources = list(dict.fromkeys(counter.name for counter in counters))
        self._last = [0.0] * len(counters)

    def start(self) -> None:
        """What was drawn before does not count."""
        self._last = [counter.joules() for counter in self.counters]
        for counter in self.counters:
            counter.share()

    def read(self) -> None:
        """Adds what was drawn since the last reading."""
        for place, counter in enumerate(self.counters):
            now = counter.joules()
            drawn = now - self._last[place]
            self.joules += (drawn if drawn >= 0 else drawn + counter.range) * counter.share()
            self._last[place] = now


def energy_facts(joules: float, sources: list[str]) -> dict[str, Any]:
    """`kwh`, `kg_co2e`, `source` in words, and whether all of it was `measured`."""
    kwh = joules / _JOULES
    measured = bool(sources) and all(source.startswith("measured") for source in sources)
    facts = {"kwh": kwh, "kg_co2e": kwh * KILOGRAMS_PER_KWH, "source": "; ".join(sources), "measured": measured}
    return facts | {"kilograms_per_kwh": KILOGRAMS_PER_KWH}


def energy_words(facts: dict[str, Any]) -> str:
    """`1.2 Wh, 0.48 g CO2e (estimated: ...)`."""
    kwh, kilograms = facts["kwh"], facts["kg_co2e"]
    energy = f"{kwh:.3g} kWh" if kwh >= 1 else f"{1000 * kwh:.3g} Wh"
    carbon = f"{kilograms:.3g} kg" if kilograms >= 1 else f"{1000 * kilograms:.3g} g"
    return f"{energy}, {carbon} CO2e at {facts['kilograms_per_kwh']:g} kg/kWh ({facts['source']})"


def counters_of(processes: int, *, gpu: bool) -> list[Counter]:
    """What this machine tells of a run of so many processes, each with a device of its own where there is a `gpu`."""
    counters = processor_counters(processes)
    if gpu:
        counters.append(nvml_counter(processes) or _estimated_gpus(processes))
    return counters


def processor_counters(processes: int = 1, powercap: Path = _POWERCAP, stat: Path = _STAT) -> list[Counter]:
    """RAPL's packages; one that estimates where there are none, or they can't be read."""
    counters = []
    for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's have this name too
        try:
            if not (zone / "name").read_text().startswith("package"):
                continue
            limit = int((zone / "max_energy_range_uj").read_text()) / 1e6
            joules = _package_joules(zone / "energy_uj")
            share = _BusyShare(processes, stat)
        except (OSError, ValueError):  # such as without the permission to read it
            continue
        counters.append(Counter("measured: RAPL, by share of the processor's busy time", joules, limit, share))
    estimated = f"estimated: {CORE_WATTS:g} W for a core's second"
    return counters or [Counter(estimated, lambda: CORE_WATTS * processes * own_seconds())]


def _package_joules(file: Path) -> Callable[[], float]:
    def joules() -> float:
        return int(file.read_text()) / 1e6

    joules()
    return joules


def own_seconds() -> float:
    """Processor time of this process, and of its processes that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds(stat: Path) -> float:
    """Time that all cores of this machine were busy."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, stat.read_text().split("\n", 1)[0].split()[1:])
    return float(user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class _BusyShare:
    """The part of `processes` like this one of the time that cores were busy since it was last asked."""

    def __init__(self, processes: int, stat: Path) -> None:
        self._processes, self._stat, self._last = processes, stat, (own_seconds(), _busy_seconds(stat))

    def __call__(self) -> float:
        now = own_seconds(), _busy_seconds(self._stat)
        own, busy = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        return min(1.0, self._processes * own / busy) if busy > 0 else 0.0


def _estimated_gpus(gpus: int) -> Counter:
    name = f"estimated: {GPU_WATTS:g} W for each of {gpus} GPU{'s' if gpus > 1 else ''}"
    return Counter(name, lambda: GPU_WATTS * gpus * time.monotonic())


def nvml_counter(gpus: int, library: Any = None, uuid: str | None = None) -> Counter | None:
    """The counter of this process' GPU (`nvmlDeviceGetTotalEnergyConsumption`, in millijoules), `gpus` times; None
    where the driver's library or the counter (Volta and later) is missing."""
    device, value = ctypes.c_void_p(), ctypes.c_ulonglong()

    def joules() -> float:
        if library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value)):
            raise OSError("NVML has no energy of this device")
        return gpus * value.value / 1000

    try:
        import torch

        library = library or ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
        uuid = uuid or f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)):
            return None
        joules()
    except (OSError, RuntimeError, AssertionError, AttributeError):
        return None
    return Counter("measured: NVML" + (f", one GPU's times {gpus}" if gpus > 1 else ""), joules)
