"""`maquette plan`: so many accelerators for so many days; what should they train, and what does it cost?"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.artifacts.errors import ConfigError, MaquetteError
from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.cli.command_line.law_config import PlanStage
from maquette.reports.figures import save_figure
from maquette.scaling import (
    Assumptions,
    ComputePlan,
    LossSurface,
    compare_pipelines,
    make_plan,
    preset,
    published_surface,
)
from maquette.scaling.fits.stored_fit import find_fit, load_fit
from maquette.scaling.laws.runs import Array
from maquette.scaling.laws.surface import PUBLISHED
from maquette.scaling.plans.pipelines import PipelineComparison
from maquette.scaling.plans.plan_report import pipeline_rows, plan_figure, plan_rows

_FAR = 10
"""So many times beyond a fit's largest budget a plan says how far it reaches."""

_COUNTS = ("params", "tokens", "tokens_available", "tokens_served")


def run(config: PlanStage) -> ComputePlan | PipelineComparison:
    """Prints the plan (or the two pipelines side by side) and draws it into `<outputs>/plans/`."""
    assumptions = assumed(config)
    surface, samples, freedom, source, largest = chosen_surface(config)
    if config.pipeline == "compare":
        comparison = compare_pipelines(surface, assumptions.flops_a_day)
        _print(config, pipeline_rows(comparison), dataclasses.asdict(comparison), source)
        return comparison
    plan = make_plan(assumptions, surface, samples=samples, degrees_of_freedom=freedom)
    if largest is not None and plan.flops > _FAR * largest:
        source += (
            f". The plan lies {plan.flops / largest:.1g} times beyond its largest budget: its intervals trust the form"
        )
    _print(config, list(plan_rows(plan)), plan.to_json(), source)
    name = f"{config.preset or assumptions.gpu}-{digest(dataclasses.asdict(assumptions) | {'on': config.surface})[:8]}"
    say(f"figure: {save_figure(plan_figure(plan), Path(config.outputs) / 'plans' / name)}")
    return plan


def chosen_surface(config: PlanStage) -> tuple[LossSurface, Array, float, str, float | None]:
    """The surface to plan on; for intervals resamples of it (m, 6) and its fit's degrees of freedom; what it is in
    words (published, or one's own); and the largest budget of one's own fit in FLOPs.

    Raises `ConfigError` where `surface` names neither.
    """
    if config.surface in PUBLISHED:
        published = published_surface(config.surface)
        return published.surface, published.samples(), math.inf, published.source, None
    try:
        folder = find_fit(None if config.surface == "latest" else config.surface, config.outputs)
    except MaquetteError as error:
        raise ConfigError(
            f"surface={config.surface} is neither published nor a fit: {error.message}",
            f"Published: {', '.join(PUBLISHED)}. {error.hint}",
        ) from None
    fit, _ = load_fit(folder)
    found = fit.surface
    source = f"the fit {folder.name}: the {found.form} form of {fit.table.source}, {len(fit.table)} runs"
    return found.surface, found.samples, found.degrees_of_freedom, source, fit.comparison.largest_budget


def assumed(config: PlanStage) -> Assumptions:
    """The preset's assumptions, or the default ones, with those given put in their place.

    Raises `ConfigError` where they contradict each other.
    """
    names = {field.name for field in dataclasses.fields(Assumptions)}
    given = {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}
    changes: dict[str, Any] = {
        name: float(parse_quantity(value, name)) if name in _COUNTS else value for name, value in given.items()
    }
    found = preset(config.preset, **changes) if config.preset else Assumptions(**changes)
    if config.tokens_per_parameter is None:
        return found
    if config.params is not None or config.tokens is not None:
        raise ConfigError(
            "tokens_per_parameter stands beside params or tokens.",
            "It spends the compute of gpus x days: leave them out.",
        )
    return found.at_ratio(config.tokens_per_parameter)


def _print(config: PlanStage, rows: list[tuple[str, str, str]], values: dict[str, Any], source: str) -> None:
    if config.json:
        print(json.dumps(values, indent=2))
        return
    table = Table(caption=f"On the surface of {source}", caption_justify="left", show_header=False)
    table.add_column(style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
