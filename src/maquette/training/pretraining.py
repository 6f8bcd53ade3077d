"""A run over text: pretraining, and objectives or data of a user's around our model.

A user's objective is a LightningModule class that is given `model` (a description for
`maquette.model.loading.build_model`), `optimization` and its own settings, as far as it names them. The shortest one is
a subclass of `maquette.objectives.Pretraining` with a `loss(batch)` of its own; one that keeps the language model as
`self.model` is exported, others say that they are not.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule

from maquette.artifacts.settings import plain_arguments
from maquette.artifacts.targets import build_part
from maquette.data.config import DataConfig, MixtureConfig
from maquette.data.custom_data import build_data, facts_of
from maquette.data.mixture import phase_configs
from maquette.data.pretraining_data import PretrainingData
from maquette.model.architecture import CoreConfig, TransformerConfig
from maquette.objectives import Pretraining
from maquette.objectives.config import PretrainConfig
from maquette.objectives.held_out import metric_name
from maquette.text import Tokenizer
from maquette.training.job import Job, ObjectivePlan, Opened, Row, describe_run_model, prepare_optimization
from maquette.training.micro_batch import choose_micro_batch
from maquette.training.report import draw_curves, draw_loss


@dataclass(frozen=True)
class PretrainingPlan(ObjectivePlan):
    """Which text, in which order. `objective` has the loss's settings."""

    tokens_folder: Path
    data: DataConfig
    mixture: MixtureConfig
    objective: PretrainConfig

    def batch_sequences(self, job: Job) -> int:
        """Sequences of one context in a step, over all processes."""
        return job.spec.batch_size_tokens // self.data.sequence_length

    def open(self, job: Job, tokenizer: Tokenizer) -> Opened:
        batch_sequences, phases = self.batch_sequences(job), phase_configs(self.mixture)
        micro_batch_size = choose_micro_batch(
            job.spec.architecture,
            batch_sequences=batch_sequences,
            context=self.data.sequence_length,
            whole=int(np.lcm.reduce([phase.context_multiple for phase in phases])),
            micro_batch_size=self.data.micro_batch_size,
            accumulate=job.trainer.accumulate_grad_batches,
            hardware=job.hardware,
        )
        data = PretrainingData(
            self.tokens_folder, tokenizer, data=self.data, mixture=self.mixture, batch_sequences=batch_sequences,
            micro_batch_size=micro_batch_size, steps=job.spec.steps, seed=job.spec.seed,
            validations=len(job.validation_steps),
        )  # fmt: skip
        module = Pretraining(
            describe_run_model(job), prepare_optimization(job), self.objective,
            rope_thetas=[phase.rope_theta for phase in phases],
        )  # fmt: skip
        return Opened(module, data, batch_sequences // job.hardware.data_parts // micro_batch_size)

    def results(self, opened: Opened, last: Row, step: int) -> dict[str, Any]:
        data: Any = opened.data
        epochs = data.order.epochs(step * data.batch_sequences)
        return {
            "domains": {
                domain: {
                    key: last[name]
                    for key in ("loss", "perplexity", "bits_per_byte")
                    if (name := metric_name(domain, key)) in last
                }
                | {"epochs": epochs[domain]}
                for domain in data.order.domains
            },
            "facts": {"unigram_entropy": data.unigram_entropy()},
        }

    def exported_architecture(self, job: Job, opened: Opened, step: int) -> CoreConfig:
        """Positions as the phase that the run has reached reads them."""
        architecture, data = job.spec.architecture, opened.data
        assert isinstance(data, PretrainingData)
        phase = data.order.phases[data.order.phase_of(max(0, step * data.batch_sequences - 1))]
        if isinstance(architecture, TransformerConfig) and phase.rope_theta:
            return dataclasses.replace(architecture, rope_theta=phase.rope_theta)
        return architecture

    def draw(self, opened: Opened, history: list[Row], folder: Path, title: str) -> list[Path]:
        data: Any = opened.data
        return [draw_loss(history, list(data.order.domains), folder / "loss", title=title)]


@dataclass(frozen=True)
class CustomPlan(ObjectivePlan):
    """`text`: our plan, whose data and settings are used where `data` or `objective` (nodes with a `_target_`) are
    None."""

    text: PretrainingPlan
    objective: dict[str, Any] | None = None
    data: dict[str, Any] | None = None

    def open(self, job: Job, tokenizer: Tokenizer) -> Opened:
        if self.data is None:
            opened = self.text.open(job, tokenizer)
        else:
            target = str(self.data["_target_"])
            data = build_data(self.data, seed=job.spec.seed)
            batches = facts_of(data, target).batches
            module = Pretraining(describe_run_model(job), prepare_optimization(job), self.text.objective)
            opened = Opened(module, data, 1, batches or 0)
        return (
            opened
            if self.objective is None
            else dataclasses.replace(opened, module=build_objective(self.objective, job))
        )

    def results(self, opened: Opened, last: Row, step: int) -> dict[str, Any]:
        return self.text.results(opened, last, step) if self.data is None else {}

    def exported_architecture(self, job: Job, opened: Opened, step: int) -> CoreConfig:
        if self.data is None:
            return self.text.exported_architecture(job, opened, step)
        return job.spec.architecture

    def draw(self, opened: Opened, history: list[Row], folder: Path, title: str) -> list[Path]:
        if self.data is None and self.objective is None:
            return self.text.draw(opened, history, folder, title)
        names = sorted({name for row in history for name in row if name.startswith(("train/", "validation/"))})
        losses = [name for name in names if name.endswith("loss")]
        others = [name for name in names if name.startswith("validation/") and name not in losses]
        return [draw_curves(history, [("loss", losses), ("validation", others)], folder / "loss", title=title)]


def build_objective(node: Mapping[str, Any], job: Job) -> LightningModule:
    """The module that a node names. Raises `ConfigError` for what is none."""
    module: LightningModule = build_part(
        str(node["_target_"]), plain_arguments(node), LightningModule, key="objective",
        model=describe_run_model(job), optimization=prepare_optimization(job),
    )  # fmt: skip
    return module
