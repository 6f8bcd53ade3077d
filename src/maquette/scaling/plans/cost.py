"""From FLOPs to hours, money, energy and carbon: one multiplication each, every factor an argument."""

BYTES_PER_PARAMETER_TRAINING = 16
"""Weights and gradients in 16 bits (2 + 2), weights and two moments of Adam in 32 (4 + 4 + 4): Rajbhandari et al.
2020 (ZeRO), section 3.1. Activations come on top."""

BYTES_PER_PARAMETER_SERVING = 2
"""Weights in 16 bits; the key-value cache comes on top."""

FLIGHT_TONNES = 2.0
"""CO2e of one return flight between New York and London, as the lecture reckons: 4,000 t are 2,000 of them."""

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
