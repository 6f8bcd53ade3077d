"""Whether the model of a plan fits its accelerators, and what a mixture of experts has beside what a token uses.

The law that a plan rests on is one of dense models: of a sparse one its N is what a token uses (Krajewski et al. 2024,
"Scaling Laws for Fine-Grained Mixture of Experts", find laws of their own).
"""

import dataclasses

from maquette.artifacts.errors import ConfigError
from maquette.cli.command_line.law_config import PlanStage
from maquette.cli.planning.memory import size
from maquette.model.config import ModelConfig
from maquette.model.core_config import CoreConfig
from maquette.optimization.config import AdamWConfig
from maquette.recipe.shape import choose_shape
from maquette.reports import quantity
from maquette.scaling.plans.hardware import accelerator
from maquette.scaling.plans.planner import ComputePlan

VOCABULARY = 128_000
"""Of the models that are planned, as of Llama 3's."""

SEQUENCE_LENGTH = 4096
"""Where none is given; parameters do not depend on it."""


@dataclasses.dataclass(frozen=True)
class PlannedMemory:
    """Bytes by part on each accelerator, which share the weights out (FSDP2), with one sequence at a time. `kind` of
    `activation_checkpointing`: the cheapest with which it fits, or else the last that was tried."""

    parts: dict[str, int]
    kind: str
    fits: bool

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def planned_shape(plan: ComputePlan, config: PlanStage) -> CoreConfig | None:
    """A model of the plan's size, of a Llama's shape by the recipe; None where the recipe has none of the size."""
    model = ModelConfig(token_shift=False)
    if config.num_experts is not None:
        model.kind, model.num_experts = "moe", config.num_experts
        model.num_experts_per_tok = config.num_experts_per_tok
    context = config.sequence_length or SEQUENCE_LENGTH
    try:
        return choose_shape(model, round(plan.params), vocab_size=VOCABULARY, context=context)
    except ConfigError:
        if config.num_experts is not None:
            raise
        return None


def with_experts(plan: ComputePlan, shape: CoreConfig | None) -> ComputePlan:
    """The plan with all parameters of a sparse model, which lie in memory although a token does not use them."""
    inactive = 0 if shape is None else shape.parameters().inactive
    more = 1 + inactive / plan.params
    return dataclasses.replace(
        plan, total_params=plan.params + inactive, training_memory_per_gpu=plan.training_memory_per_gpu * more,
        serving_memory=plan.serving_memory * more,
    )  # fmt: skip


def planned_memory(plan: ComputePlan, shape: CoreConfig) -> PlannedMemory:
    """Of a step in bf16-mixed with AdamW."""
    from maquette.training.step_memory import Step, predict

    room = accelerator(plan.assumptions.gpu).memory
    for kind in ("none", "selective", "block"):
        step = Step(
            shape, 1, shape.max_position_embeddings, AdamWConfig(), precision="bf16-mixed", checkpointing=kind,
            accelerator="cuda",
        )  # fmt: skip
        memory = predict(step).sharded(max(1, round(plan.assumptions.gpus)))
        if memory.total <= room:
            break
    return PlannedMemory(memory.parts, kind, memory.total <= room)


def memory_row(plan: ComputePlan, config: PlanStage, memory: PlannedMemory | None) -> tuple[str, str, str]:
    """A row of the plan's table."""
    if memory is None:
        return "memory of a step", "unknown", "the recipe has no model of this size"
    verdict = "fits" if memory.fits else "does not fit: shorter sequences, or tensor parallelism"
    recomputed = "" if memory.kind == "none" else f" with activation_checkpointing={memory.kind}"
    parts = ", ".join(f"{name} {size(value)}" for name, value in memory.parts.items())
    room = accelerator(plan.assumptions.gpu).memory
    remark = f"{verdict}{recomputed}; {parts}; one sequence of {config.sequence_length:,} tokens"
    return "memory of a step", f"{size(memory.total)} of {size(room)} per GPU", remark


def experts_row(plan: ComputePlan, config: PlanStage) -> tuple[str, str, str]:
    """A row of the plan's table."""
    remark = f"{config.num_experts} experts, {config.num_experts_per_tok} a token; the law is one of dense models"
    return "parameters in all", quantity(plan.total_params or plan.params), remark
