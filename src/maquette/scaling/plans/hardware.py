"""Accelerators as a planner needs them; from FLOPs to hours, money, energy and carbon.

Peaks are dense (no sparsity) 16-bit tensor throughput from the vendors' data sheets. Prices are round rental prices,
an assumption that every plan can replace. Each cost is one multiplication, every factor an argument.
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
    match = ACCELERATORS.get(name.lower())
    if match is None:
        near = nearest(name.lower(), list(ACCELERATORS))
        raise ConfigError(
            f"gpu={name} is not known.",
            (f"Did you mean {near}? " if near else "") + f"Known: {', '.join(ACCELERATORS)}.",
        )
    return match


BYTES_PER_PARAMETER_TRAINING = 16
"""Weights and gradients in 16 bits (2 + 2), weights and two moments of Adam in 32 (4 + 4 + 4): Rajbhandari et al.
2020 (ZeRO), section 3.1. Activations come on top."""

BYTES_PER_PARAMETER_SERVING = 2
"""Weights in 16 bits; the key-value cache comes on top."""

FLIGHT_TONNES = 2.0
"""CO2e of one return flight between New York and London; 4,000 t are 2,000 of them."""

REPORTING_THRESHOLD = 1e26
"""FLOPs above which US Executive Order 14110 (2023, revoked in 2025) asked for a report."""


def gpu_hours(flops: float, peak_flops: float, utilization: float) -> float:
    """Hours of one accelerator for `flops`, at `utilization` (MFU) of its peak per second."""
    return flops / (peak_flops * utilization) / 3600


def flops_bought(gpus: float, days: float, peak_flops: float, utilization: float) -> float:
    """FLOPs that `gpus` do in `days`."""
    return gpus * days * 86_400 * peak_flops * utilization


def energy_kwh(hours: float, power: float, overhead: float) -> float:
    """Energy in kWh of `hours` accelerator-hours at `power` watts; `overhead` is the building's (PUE, at least 1)."""
    return hours * power / 1000 * overhead


def tonnes_co2e(kwh: float, kilograms_per_kwh: float) -> float:
    """Tonnes of CO2 equivalent of an amount of energy on a grid of that intensity."""
    return kwh * kilograms_per_kwh / 1000


def staff_cost(people: float, salary: float, years: float) -> float:
    """What people cost: `salary` in dollars a year, all included."""
    return people * salary * years
