"""The loss surface that a plan rests on, and the plan as a person reads it: rows of a table and a figure."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.reports.figures import COLORS, new_figure
from maquette.reports.tables import quantity
from maquette.scaling.fits.stored_fit import find_fit, load_fit
from maquette.scaling.laws.runs import Array
from maquette.scaling.laws.surface import FLOPS_PER_PARAMETER_AND_TOKEN, PUBLISHED, LossSurface, published_surface
from maquette.scaling.plans.planner import ComputePlan, PipelineComparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAR = 10
"""So many times beyond a fit's largest budget a plan says how far it reaches."""


class PlanSurface(NamedTuple):
    """A surface to plan on. For intervals: resamples of it (m, 6) and its fit's degrees of freedom. `source`: what it
    is, in words; `largest`: the largest budget of one's own fit in FLOPs."""

    surface: LossSurface
    samples: Array
    degrees_of_freedom: float
    source: str
    largest: float | None

    def words(self, flops: float) -> str:
        """The source, with a warning where a plan of so many FLOPs lies far beyond it."""
        if self.largest is None or flops <= FAR * self.largest:
            return self.source
        times = f"{flops / self.largest:.1g} times beyond its largest budget"
        return f"{self.source}. The plan lies {times}: its intervals trust the form"


def find_surface(name: str, outputs: Path | str) -> PlanSurface:
    """A published surface by its name, or that of a fit of these outputs (`latest`: the newest).

    Raises `ConfigError` where `name` means neither.
    """
    if name in PUBLISHED:
        published = published_surface(name)
        return PlanSurface(published.surface, published.samples(), math.inf, published.source, None)
    try:
        folder = find_fit(None if name == "latest" else name, outputs)
    except MaquetteError as error:
        raise ConfigError(
            f"surface={name} is neither published nor a fit: {error.message}",
            f"Published: {', '.join(PUBLISHED)}. {error.hint}",
        ) from None
    fit, _ = load_fit(folder)
    largest, source = fit.comparison.largest_budget, f"of {fit.table.source}, {len(fit.table)} runs"
    if fit.forced:
        forced = fit.surface
        source = f"the fit {folder.name}: the {forced.form} form {source}"
        return PlanSurface(forced.surface, forced.samples, forced.degrees_of_freedom, source, largest)
    surface, samples = fit.predictor.planning_surface()
    return PlanSurface(surface, samples, math.inf, f"the fit {folder.name}: the predictor {source}", largest)


def plan_rows(plan: ComputePlan) -> Iterator[tuple[str, str, str]]:
    """What a plan says: name, value, and a remark or a 90% interval."""
    given = plan.assumptions
    yield "parameters", quantity(plan.params), _interval(plan, "params")
    yield "tokens", quantity(plan.tokens), _interval(plan, "tokens")
    yield "tokens per parameter", f"{plan.tokens_per_param:.1f}", ""
    threshold = "above" if plan.reportable else "below"
    yield "training compute", f"{plan.flops:.3g} FLOPs", f"6ND; {threshold} the reporting threshold of 1e26"
    yield "expected loss", f"{plan.loss:.4f} nats/token", _interval(plan, "loss")
    if plan.epochs is not None:
        yield "epochs", f"{plan.epochs:.2f}", f"of {quantity(given.tokens_available or 0)} distinct tokens"
    yield "accelerators", f"{given.gpus:,.0f} {given.gpu}", f"MFU {given.utilization:.1%}"
    yield "time", f"{plan.days:.1f} days", f"{quantity(plan.gpu_hours)} GPU-hours"
    yield "compute cost", f"${quantity(plan.compute_cost)}", f"${plan.compute_cost / plan.gpu_hours:.2f} an hour"
    if given.people:
        people = f"{given.people:g} people at ${quantity(given.salary)} for {given.staff_years:g} years"
        yield "staff cost", f"${quantity(plan.staff_cost)}", people
        yield "total cost", f"${quantity(plan.total_cost)}", ""
    yield "energy", f"{quantity(plan.energy)} kWh", f"PUE {given.overhead:g}"
    tonnes, flights = plan.tonnes_co2e, plan.flights
    emissions = f"{tonnes:,.0f} t CO2e" if tonnes >= 10 else f"{1e3 * tonnes:,.3g} kg CO2e"
    count = f"{flights:,.{0 if flights >= 10 else 1}f}" if flights >= 0.1 else "less than 0.1"
    per_kwh = f"{given.kilograms_per_kwh:g} kg/kWh"
    yield "emissions", emissions, f"{count} return flights New York-London, at {per_kwh}"
    yield "weights and optimiser", f"{gigabytes(plan.training_memory_per_gpu)} per GPU", "sharded over all"
    yield "memory to serve", gigabytes(plan.serving_memory), "weights in 16 bits"
    yield "one more dollar of GPUs", f"{-plan.gain_per_dollar_gpus:.2g} nats", ""
    if given.tokens_available is not None:
        yield "one more dollar of data", f"{-plan.gain_per_dollar_data:.2g} nats", f"${given.token_price:g} a million"
    volume = plan.tokens_served_for
    if volume is not None and abs(volume) > 1e-6 * plan.tokens:
        yield "best if it serves", *_served(plan, volume)
    if plan.serving is not None:
        smaller = f"{quantity(plan.serving.params)} parameters, {quantity(plan.serving.tokens)} tokens"
        yield (
            "cheaper to serve",
            smaller,
            (
                f"the same loss; {plan.serving.tokens_per_param:.0f} tokens a parameter; "
                f"saves {plan.serving_flops_saved:.2g} FLOPs over {quantity(given.tokens_served)} tokens served"
            ),
        )


def pipeline_rows(comparison: PipelineComparison) -> list[tuple[str, str, str]]:
    """The two pipelines beside each other: name, loss, and the model."""
    shown = [
        ("thirty models of one day", comparison.old, comparison.old_loss),
        ("one model of 27 days", comparison.new, comparison.new_loss),
    ]
    rows = [
        (name, f"loss {loss:.4f}", f"{quantity(model.params)} parameters, {quantity(model.tokens)} tokens")
        for name, model, loss in shown
    ]
    return [*rows, ("compute the old way would need", f"{comparison.compute_factor:.1f} x", "for the new way's loss")]


def _served(plan: ComputePlan, volume: float) -> tuple[str, str]:
    """Which served volume asks for a model of these proportions."""
    if volume > 0:
        times = f"{volume / plan.tokens:.2g} times its training tokens"
        return f"{quantity(volume)} tokens", f"{times}: then this is the cheapest model of its loss"
    return "nothing", "it is too big for its data even if it is never served"


def plan_figure(plan: ComputePlan) -> "Figure":
    """Loss against size at the plan's compute, with the plan and its serving-aware alternative."""
    figure, axes = new_figure()
    params = np.geomspace(plan.params / 30, plan.params * 30, 200)
    loss = plan.surface.loss(params, plan.flops / FLOPS_PER_PARAMETER_AND_TOKEN / params)
    axes.plot(params, loss, label=f"{plan.flops:.2g} FLOPs, no repetition")
    axes.plot(plan.params, plan.loss, "o", color=COLORS[1], label=f"plan: {quantity(plan.params)}")
    if "params" in plan.intervals:
        low, high = plan.intervals["params"]
        axes.axvspan(low, high, color=COLORS[1], alpha=0.15, label="best size, 90% interval")
    if plan.serving is not None:
        label = f"cheaper to serve: {quantity(plan.serving.params)}"
        axes.plot(plan.serving.params, plan.loss, "s", color=COLORS[2], label=label)
    axes.set(xscale="log", xlabel="parameters N", ylabel="loss (nats per token)", title="Loss against size")
    axes.legend(frameon=False)
    return figure


def gigabytes(value: float) -> str:
    """Bytes in gigabytes, with three digits."""
    return f"{value / 1e9:,.3g} GB" if value < 1e12 else f"{value / 1e9:,.0f} GB"


def _interval(plan: ComputePlan, name: str) -> str:
    if name not in plan.intervals:
        return ""
    low, high = plan.intervals[name]
    return f"90%: {quantity(low)} to {quantity(high)}" if name != "loss" else f"90%: {low:.4f} to {high:.4f}"
