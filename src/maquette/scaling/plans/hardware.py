"""Accelerators as a planner needs them: peak speed, memory, power, and what an hour costs.

Peaks are dense (no sparsity) 16-bit tensor throughput from the vendors' data sheets. Prices are round rental prices,
an assumption that every plan can replace.
"""

from dataclasses import dataclass

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import nearest


@dataclass(frozen=True)
class Accelerator:
    """`peak_flops` per second, `memory` in bytes, `power` in watts, `price` in dollars an hour."""

    name: str
    peak_flops: float
    memory: float
    power: float
    price: float


ACCELERATORS = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator("v100", peak_flops=125e12, memory=32e9, power=300, price=0.6),
        Accelerator("a100", peak_flops=312e12, memory=80e9, power=400, price=1.3),
        Accelerator("h100", peak_flops=989.4e12, memory=80e9, power=700, price=2.0),
        Accelerator("h200", peak_flops=989.4e12, memory=141e9, power=700, price=2.5),
        Accelerator("b200", peak_flops=2250e12, memory=180e9, power=1000, price=4.0),
        Accelerator("mi300x", peak_flops=1307.4e12, memory=192e9, power=750, price=2.2),
    )
}


def accelerator(name: str) -> Accelerator:
    """An accelerator by name. Raises `ConfigError` with the nearest known one."""
    found = ACCELERATORS.get(name.lower())
    if found is None:
        near = nearest(name.lower(), list(ACCELERATORS))
        raise ConfigError(
            f"gpu={name} is not known.",
            (f"Did you mean {near}? " if near else "") + f"Known: {', '.join(ACCELERATORS)}.",
        )
    return found
