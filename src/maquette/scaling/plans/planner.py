"""The planner: so many accelerators for so many days, what should they train, and what will it cost?

A plan is a pure function of assumptions and a loss surface: "you have 10,000 GPUs for a month" is one set of
assumptions, Llama 3 405B (Dubey et al. 2024) another.

There are two ways to spend a month: thirty models of one day each, or three days of small ones and one of 27 days. The
old way tunes the big model: it trains models with settings that somebody might guess, all at an equal share of the
compute, and keeps the best. The new way spends a tenth on small models and gives all the rest to one run.
`compare_pipelines` weighs both on a law; `experiments/pipelines.py` trains both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from maquette.artifacts import ConfigError
from maquette.scaling.laws.repetition import RepetitionLaw
from maquette.scaling.laws.runs import Array, LawError
from maquette.scaling.laws.surface import (
    FLOPS_PER_PARAMETER_AND_TOKEN,
    INFERENCE_FLOPS_PER_PARAMETER_AND_TOKEN,
    Allocation,
    LossSurface,
)
from maquette.scaling.plans import hardware as cost
from maquette.scaling.plans.hardware import Accelerator, accelerator
from maquette.statistics import Interval, percentile_interval
from maquette.training.energy import KILOGRAMS_PER_KWH


@dataclass(frozen=True)
class Assumptions:
    """What a plan rests on. With `params` and `tokens` given the days follow from them, else they from the days.

    `utilization`: MFU. `price`: dollars per accelerator-hour (None: the accelerator's own). `overhead`: PUE.
    `tokens_available`: distinct tokens there are (None: enough). `tokens_served`: over the model's life.
    `token_price`: dollars for a million more distinct tokens.
    """

    gpu: str = "h100"
    gpus: float = 10_000
    days: float = 30
    params: float | None = None
    tokens: float | None = None
    utilization: float = 0.4
    price: float | None = None
    people: float = 0
    salary: float = 500_000
    staff_years: float = 1.0
    overhead: float = 1.1
    kilograms_per_kwh: float = KILOGRAMS_PER_KWH
    tokens_available: float | None = None
    tokens_served: float = 0.0
    token_price: float = 1.0

    def __post_init__(self) -> None:
        positive = ("gpus", "days", "utilization", "overhead", "token_price")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name):g} must be above 0.")
        for name in ("people", "salary", "staff_years", "kilograms_per_kwh", "tokens_served"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name):g} must not be below 0.")
        for name in ("params", "tokens", "price", "tokens_available"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value:g} must be above 0.")
        if self.utilization > 1:
            raise ConfigError(
                f"utilization={self.utilization:g} is above 1: no accelerator beats its peak.", "0.4 is usual."
            )
        if (self.params is None) != (self.tokens is None):
            raise ConfigError(
                "A model to cost needs both params and tokens.", "Give both, or neither for the best one."
            )
        accelerator(self.gpu)

    @property
    def flops_a_day(self) -> float:
        """What all accelerators do in a day of training."""
        return cost.flops_bought(self.gpus, 1, accelerator(self.gpu).peak_flops, self.utilization)

    def at_ratio(self, tokens_per_parameter: float) -> "Assumptions":
        """With the model of so many tokens per parameter: of the same 6 N D as the given one, else as the days buy."""
        product = self.flops_a_day * self.days / FLOPS_PER_PARAMETER_AND_TOKEN
        if self.params is not None and self.tokens is not None:
            product = self.params * self.tokens
        params = (product / tokens_per_parameter) ** 0.5
        return replace(self, params=params, tokens=params * tokens_per_parameter)


LLAMA3_405B = Assumptions(
    gpu="h100",
    gpus=16_000,
    params=405e9,
    tokens=15.6e12,
    # 400 TFLOP/s on each, as Dubey et al. 2024 ("The Llama 3 Herd of Models", table 4) report: 38 to 43% MFU.
    utilization=400e12 / 989.4e12,
    price=2.0,
    people=50,
    salary=500_000,
    staff_years=1.0,
    # 4,000 t over 26M hours of 700 W, as the estimate in Stanford CS229 has it: no overhead, and 0.22 kg/kWh. The
    # model card's location-based 8,930 t for 30.84M hours come to 0.41.
    overhead=1.0,
    kilograms_per_kwh=0.22,
)

PRESETS = {"llama3_405b": LLAMA3_405B}


@dataclass(frozen=True)
class ComputePlan:
    """What to train and what it takes. Money in dollars, energy in kWh, memory in bytes, loss in nats per token.

    `intervals`: 90% of `params`, `tokens` and `loss` where the surface's uncertainty is known. `epochs`: passes over
    the data there is (None: enough data). `serving`: what would reach the same loss for least training and serving
    together; None where nothing is served. `gain_per_dollar_gpus`, `gain_per_dollar_data`: nats that one more dollar
    takes off the loss when it buys accelerator time, or distinct tokens. `total_params`: of a mixture of experts, of
    which a token uses `params`.
    """

    assumptions: Assumptions
    surface: LossSurface
    params: float
    tokens: float
    flops: float
    loss: float
    gpu_hours: float
    days: float
    compute_cost: float
    staff_cost: float
    energy: float
    tonnes_co2e: float
    training_memory_per_gpu: float
    serving_memory: float
    epochs: float | None
    serving: Allocation | None
    serving_flops_saved: float
    gain_per_dollar_gpus: float
    gain_per_dollar_data: float
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    total_params: float | None = None

    @property
    def tokens_per_param(self) -> float:
        """D / N."""
        return self.tokens / self.params

    @property
    def total_cost(self) -> float:
        """Compute and people."""
        return self.compute_cost + self.staff_cost

    @property
    def flights(self) -> float:
        """Return flights between New York and London with the same emissions."""
        return self.tonnes_co2e / cost.FLIGHT_TONNES

    @property
    def serving_gpus(self) -> int:
        """The fewest accelerators whose memory holds the weights in 16 bits."""
        return int(np.ceil(self.serving_memory / accelerator(self.assumptions.gpu).memory))

    @property
    def tokens_served_for(self) -> float | None:
        """The served volume for which a model of these N and D is the cheapest to train and serve at its loss; below 0
        where it is too big for its data even if it is never served (Sardana et al. 2024, read backwards). None where it
        repeats its data: its proportions then speak of what data there is."""
        if self.epochs is not None and self.epochs > 1:
            return None
        return self.surface.tokens_served_for(self.params, self.tokens)

    @property
    def reportable(self) -> bool:
        """Whether it lies above the reporting threshold of 1e26 FLOPs."""
        return self.flops >= cost.REPORTING_THRESHOLD

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values: the ten that are asked for first, then the rest."""
        first = ("params", "tokens", "tokens_per_param", "flops", "gpu_hours", "days", "compute_cost", "staff_cost")
        rest = (
            "loss",
            "energy",
            "flights",
            "reportable",
            "training_memory_per_gpu",
            "serving_memory",
            "serving_gpus",
            "epochs",
            "tokens_served_for",
        )
        last = ("total_params", "serving_flops_saved", "gain_per_dollar_gpus", "gain_per_dollar_data")
        names = (*first, "total_cost", "tonnes_co2e", *rest, *last)
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values["serving"] = None if self.serving is None else self.serving._asdict()
        values["intervals"] = {name: list(interval) for name, interval in self.intervals.items()}
        return values


def make_plan(
    assumptions: Assumptions,
    surface: LossSurface,
    *,
    samples: Array | None = None,
    degrees_of_freedom: float = np.inf,
    level: float = 0.9,
) -> ComputePlan:
    """The plan that follows from `assumptions` on `surface`.

    `samples` (resamples, 6): surfaces within its uncertainty (`SurfaceFit.samples`, `PublishedSurface.samples()`),
    for intervals, which are wider the fewer `degrees_of_freedom` the fit had. Where data is short (`tokens_available`)
    the allocation and the loss are those of the repetition law (Muennighoff et al. 2023).
    """
    gpu = accelerator(assumptions.gpu)
    flops, allocation = _allocate(assumptions, surface, gpu)
    hours = cost.gpu_hours(flops, gpu.peak_flops, assumptions.utilization)
    energy = cost.energy_kwh(hours, gpu.power, assumptions.overhead)
    loss = _loss(assumptions, surface, allocation)
    serving = _serving(assumptions, surface, loss) if assumptions.tokens_served else None
    by_gpus, by_data = _gains(assumptions, surface, gpu, flops)
    intervals = {}
    if samples is not None and len(samples):
        intervals = _intervals(assumptions, gpu, samples, degrees_of_freedom, level)
    return ComputePlan(
        assumptions=assumptions,
        surface=surface,
        params=allocation.params,
        tokens=allocation.tokens,
        flops=flops,
        loss=loss,
        gpu_hours=hours,
        days=hours / assumptions.gpus / 24,
        compute_cost=hours * (gpu.price if assumptions.price is None else assumptions.price),
        staff_cost=cost.staff_cost(assumptions.people, assumptions.salary, assumptions.staff_years),
        energy=energy,
        tonnes_co2e=cost.tonnes_co2e(energy, assumptions.kilograms_per_kwh),
        training_memory_per_gpu=cost.BYTES_PER_PARAMETER_TRAINING * allocation.params / assumptions.gpus,
        serving_memory=cost.BYTES_PER_PARAMETER_SERVING * allocation.params,
        epochs=None if assumptions.tokens_available is None else allocation.tokens / assumptions.tokens_available,
        serving=serving,
        serving_flops_saved=0.0 if serving is None else _total(allocation, assumptions) - _total(serving, assumptions),
        gain_per_dollar_gpus=by_gpus,
        gain_per_dollar_data=by_data,
        intervals=intervals,
    )


def _allocate(assumptions: Assumptions, surface: LossSurface, gpu: Accelerator) -> tuple[float, Allocation]:
    if assumptions.params is not None and assumptions.tokens is not None:
        given = Allocation(assumptions.params, assumptions.tokens)
        return given.compute, given
    flops = cost.flops_bought(assumptions.gpus, assumptions.days, gpu.peak_flops, assumptions.utilization)
    if assumptions.tokens_available is None:
        return flops, surface.optimal(flops)
    return flops, RepetitionLaw(surface).optimal(flops, assumptions.tokens_available)


def _loss(assumptions: Assumptions, surface: LossSurface, allocation: Allocation) -> float:
    if assumptions.tokens_available is None:
        return float(surface.loss(*allocation))
    return float(RepetitionLaw(surface).loss(*allocation, assumptions.tokens_available))


def _serving(assumptions: Assumptions, surface: LossSurface, loss: float) -> Allocation:
    if assumptions.tokens_available is None:
        return surface.optimal_for_serving(loss, assumptions.tokens_served)
    law = RepetitionLaw(surface)
    return law.optimal_for_serving(loss, assumptions.tokens_served, assumptions.tokens_available)


def _total(allocation: Allocation, assumptions: Assumptions) -> float:
    """FLOPs of training and serving together."""
    served = INFERENCE_FLOPS_PER_PARAMETER_AND_TOKEN * allocation.params * assumptions.tokens_served
    return float(FLOPS_PER_PARAMETER_AND_TOKEN * allocation.params * allocation.tokens + served)


def _gains(assumptions: Assumptions, surface: LossSurface, gpu: Accelerator, flops: float) -> tuple[float, float]:
    """Nats per dollar spent on accelerator time and on distinct tokens: derivatives of the best loss by each."""
    price = gpu.price if assumptions.price is None else assumptions.price
    flops_per_dollar = gpu.peak_flops * assumptions.utilization * 3600 / price
    tokens_per_dollar = 1e6 / assumptions.token_price
    step = 1e-3

    def best(compute: float, available: float | None) -> float:
        if available is None:
            return float(surface.optimal_loss(compute))
        law = RepetitionLaw(surface)
        return float(law.loss(*law.optimal(compute, available), available))

    available = assumptions.tokens_available
    by_gpus = (best(flops * (1 - step), available) - best(flops * (1 + step), available)) / (2 * step * flops)
    if available is None:
        return by_gpus * flops_per_dollar, 0.0
    by_data = (best(flops, available * (1 - step)) - best(flops, available * (1 + step))) / (2 * step * available)
    return by_gpus * flops_per_dollar, by_data * tokens_per_dollar


def _intervals(
    assumptions: Assumptions, gpu: Accelerator, samples: Array, degrees_of_freedom: float, level: float
) -> dict[str, Interval]:
    values = []
    for row in samples[:400] if assumptions.tokens_available else samples:
        surface = LossSurface(*(float(value) for value in row))
        _, allocation = _allocate(assumptions, surface, gpu)
        values.append((*allocation, _loss(assumptions, surface, allocation)))
    columns = np.array(values).T
    return {
        name: percentile_interval(column, level, degrees_of_freedom=degrees_of_freedom)
        for name, column in zip(("params", "tokens", "loss"), columns, strict=True)
        if np.ptp(column) > 0
    }


def preset(name: str | None = None, tokens_per_parameter: float | None = None, **changes: Any) -> Assumptions:
    """A preset's assumptions, or the default ones, with `changes`. With `tokens_per_parameter` the compute buys a model
    of that proportion.

    Raises `ConfigError` for an unknown name, and where assumptions contradict each other.
    """
    if name is None:
        assumptions = Assumptions(**changes)
    elif name in PRESETS:
        assumptions = replace(PRESETS[name], **changes)
    else:
        raise ConfigError(f"preset={name} is not known.", f"Known: {', '.join(PRESETS)}.")
    if tokens_per_parameter is None:
        return assumptions
    if "params" in changes or "tokens" in changes:
        raise ConfigError(
            "tokens_per_parameter stands beside params or tokens.",
            "It spends the compute of gpus x days: leave them out.",
        )
    return assumptions.at_ratio(tokens_per_parameter)


@dataclass(frozen=True)
class PipelineComparison:
    """`old` and `new`: the model that each way ends with, and its loss in nats per token.

    `compute_factor`: how many times the old way's whole compute it would need to reach the new way's loss.
    """

    old: Allocation
    new: Allocation
    old_loss: float
    new_loss: float
    compute_factor: float


def compare_pipelines(
    surface: LossSurface,
    flops_per_day: float,
    *,
    days: int = 30,
    small_days: int = 3,
    tuning_spread: float = 0.01,
) -> PipelineComparison:
    """Both ways at equal compute on `surface`.

    `tuning_spread`: standard deviation of log loss between settings that someone would try. The old way's `days`
    trials each draw from it and the best is kept; the new way tunes as many small ones, and its big run gets the
    best of those. Both therefore gain the same share of the loss, and what is left is the size of the run.
    """
    if not 0 < small_days < days:
        raise LawError(f"small_days={small_days} must lie between 0 and days={days}.")
    gain = float(np.exp(tuning_spread * expected_minimum(days)))
    old, new = surface.optimal(flops_per_day), surface.optimal(flops_per_day * (days - small_days))
    old_loss, new_loss = surface.loss(*old) * gain, surface.loss(*new) * gain
    factor = surface.compute_for(new_loss / gain) / flops_per_day
    return PipelineComparison(old, new, old_loss, new_loss, factor)


def expected_minimum(count: int) -> float:
    """Expected least of `count` standard normal numbers: -2.04 of 30."""
    density = quad(lambda x: x * count * norm.pdf(x) * norm.sf(x) ** (count - 1), -12, 12)
    return float(density[0])
