"""`maquette plan`: so many accelerators for so many days; what should they train, and what does it cost?"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import parse_quantity
from maquette.cli.command_line.law_config import PlanStage
from maquette.cli.planning.planned_memory import experts_row, memory_row, planned_memory, planned_shape, with_experts
from maquette.reports.figures import save_figure
from maquette.scaling import Assumptions, ComputePlan, compare_pipelines, make_plan, preset
from maquette.scaling.plans.plan_report import find_surface, pipeline_rows, plan_figure, plan_rows
from maquette.scaling.plans.planner import PipelineComparison

_COUNTS = ("params", "tokens", "tokens_available", "tokens_served")


def run(config: PlanStage) -> ComputePlan | PipelineComparison:
    """Prints the plan (or the two pipelines side by side) and draws it into `<outputs>/plans/`."""
    names = [field.name for field in dataclasses.fields(Assumptions) if getattr(config, field.name) is not None]
    given = {name: getattr(config, name) for name in names}
    given |= {name: float(parse_quantity(given[name], name)) for name in _COUNTS if name in given}
    assumptions = preset(config.preset, config.tokens_per_parameter, **given)
    result = find_surface(config.surface, config.outputs)
    if config.pipeline == "compare":
        comparison = compare_pipelines(result.surface, assumptions.flops_a_day)
        _print(config, pipeline_rows(comparison), dataclasses.asdict(comparison), result.source)
        return comparison
    plan = make_plan(
        assumptions, result.surface, samples=result.samples, degrees_of_freedom=result.degrees_of_freedom
    )  # fmt: skip
    shape = planned_shape(plan, config) if config.num_experts or config.sequence_length else None
    plan = with_experts(plan, shape)
    memory = None if shape is None or config.sequence_length is None else planned_memory(plan, shape)
    rows = list(plan_rows(plan))
    if config.sequence_length is not None:
        rows.append(memory_row(plan, config, memory))
    if config.num_experts is not None:
        rows.insert(1, experts_row(plan, config))
    values = plan.to_json() | {"step_memory": None if memory is None else dataclasses.asdict(memory)}
    _print(config, rows, values, result.words(plan.flops))
    name = f"{config.preset or assumptions.gpu}-{digest(dataclasses.asdict(assumptions) | {'on': config.surface})[:8]}"
    say(f"figure: {save_figure(plan_figure(plan), Path(config.outputs) / 'plans' / name)}")
    return plan


def _print(config: PlanStage, rows: list[tuple[str, str, str]], values: dict[str, Any], source: str) -> None:
    if config.json:
        print(json.dumps(values, indent=2))
        return
    table = Table(caption=f"On the surface of {source}", caption_justify="left", show_header=False)
    table.add_column(style="bold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
