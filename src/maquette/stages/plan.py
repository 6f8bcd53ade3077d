"""`maquette plan`: so many accelerators for so many days; what should they train, and what does it cost?"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.artifacts.figure import save_figure
from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.scaling import Assumptions, Plan, compare_pipelines, make_plan, preset, published_surface
from maquette.scaling.cost import flops_bought
from maquette.scaling.hardware import accelerator
from maquette.scaling.pipelines import PipelineComparison
from maquette.scaling.plan_report import plan_figure, plan_rows, quantity
from maquette.stages.config import PlanStage

_COUNTS = ("params", "tokens", "tokens_available", "tokens_served")


def run(config: PlanStage) -> Plan | PipelineComparison:
    """Prints the plan (or the two pipelines side by side) and draws it into `<outputs>/plans/`."""
    assumptions = assumed(config)
    published = published_surface(config.surface)
    if config.pipeline == "compare":
        comparison = compare_pipelines(published.surface, _flops_a_day(assumptions))
        _print(config, _pipeline_rows(comparison), dataclasses.asdict(comparison), published.source)
        return comparison
    plan = make_plan(assumptions, published.surface, samples=published.samples())
    _print(config, list(plan_rows(plan)), plan.to_json(), published.source)
    name = f"{config.preset or assumptions.gpu}-{digest(dataclasses.asdict(assumptions) | {'on': config.surface})[:8]}"
    say(f"figure: {save_figure(plan_figure(plan), Path(config.outputs) / 'plans' / name)}")
    return plan


def assumed(config: PlanStage) -> Assumptions:
    """The preset's assumptions, or the default ones, with those given put in their place."""
    names = {field.name for field in dataclasses.fields(Assumptions)}
    given = {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}
    changes: dict[str, Any] = {
        name: float(parse_quantity(value, name)) if name in _COUNTS else value for name, value in given.items()
    }
    return preset(config.preset, **changes) if config.preset else Assumptions(**changes)


def _flops_a_day(assumptions: Assumptions) -> float:
    return flops_bought(assumptions.gpus, 1, accelerator(assumptions.gpu).peak_flops, assumptions.utilization)


def _pipeline_rows(found: PipelineComparison) -> list[tuple[str, str, str]]:
    shown = [
        ("thirty models of one day", found.old, found.old_loss),
        ("one model of 27 days", found.new, found.new_loss),
    ]
    rows = [
        (name, f"loss {loss:.4f}", f"{quantity(model.params)} parameters, {quantity(model.tokens)} tokens")
        for name, model, loss in shown
    ]
    return [*rows, ("compute the old way would need", f"{found.compute_factor:.1f} x", "for the new way's loss")]


def _print(config: PlanStage, rows: list[tuple[str, str, str]], values: dict[str, Any], source: str) -> None:
    if config.json:
        print(json.dumps(values, indent=2))
        return
    table = Table(caption=f"On the surface of {source}", caption_justify="left", show_header=False)
    table.add_column(style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
