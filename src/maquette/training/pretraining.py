"""Pretraining as a workload: batches of a mixture of text, judged by held-out text of every domain."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from maquette.data import MixtureOrder, TokenShards, TrainingBatches
from maquette.data.config import DataConfig, MixtureConfig
from maquette.model import LanguageModel, hf, initialize
from maquette.model.config import TransformerConfig
from maquette.model.loading import load_checkpoint
from maquette.objectives import Pretraining
from maquette.objectives.config import PretrainConfig
from maquette.text import Tokenizer
from maquette.training.assembly import module_weights, prepare_optimization, prepare_speed
from maquette.training.card import write_card
from maquette.training.figures import draw_loss
from maquette.training.job import Job
from maquette.training.judgement import Judge, metric_name
from maquette.training.micro_batch import choose_micro_batch
from maquette.training.processes import World
from maquette.training.record import RunRecord
from maquette.training.samples import write_samples
from maquette.training.workload import Row, Workload


@dataclass(frozen=True)
class PretrainingPlan:
    """Which text, in which order. `objective` has the loss's settings."""

    tokens_folder: Path
    data: DataConfig
    mixture: MixtureConfig
    objective: PretrainConfig
    kind: str = "pretrain"

    def batch_sequences(self, job: Job) -> int:
        """Sequences of one context in a step, over all processes."""
        return job.batch_size_tokens // self.data.sequence_length

    def open(self, job: Job, tokenizer: Tokenizer, world: World) -> "PretrainingWorkload":
        return PretrainingWorkload(self, job, tokenizer, world)


class PretrainingWorkload(Workload):
    """A language model, its mixture of text, and the judge of its domains."""

    def __init__(self, plan: PretrainingPlan, job: Job, tokenizer: Tokenizer, world: World) -> None:
        self._plan, self._job, self._tokenizer = plan, job, tokenizer
        self._batch_sequences = plan.batch_sequences(job)
        self._shards = TokenShards(plan.tokens_folder, tokenizer.digest, verify=world.is_first)
        self._order = MixtureOrder(
            plan.mixture, self._shards.tokens("train"), context=plan.data.sequence_length, token_budget=job.tokens,
            seed=job.seed,
        )  # fmt: skip
        micro_batch_size = choose_micro_batch(
            job.architecture,
            batch_sequences=self._batch_sequences,
            context=plan.data.sequence_length,
            whole=int(np.lcm.reduce([phase.context_multiple for phase in self._order.phases])),
            wished=plan.data.micro_batch_size,
            hardware=job.hardware,
        )
        batches = TrainingBatches(
            self._shards, self._order, batch_sequences=self._batch_sequences, micro_batch_size=micro_batch_size,
            steps=job.steps,
            rank=world.rank, world_size=world.size, workers=plan.data.workers,
            document_masking=plan.data.document_masking, pin_memory=job.hardware.accelerator == "cuda",
        )  # fmt: skip
        self.batches, self.micro_batches_per_step = batches, batches.micro_batches_per_step
        self._model = self._initial_model()
        self.core = self._model.core
        self.objective = Pretraining(
            self._model,
            prepare_optimization(job),
            plan.objective,
            rope_bases=[phase.rope_theta for phase in self._order.phases],
        )
        self._judge = Judge(job, plan.data, self._shards, self._order, tokenizer.byte_lengths(), micro_batch_size)

    def judge(self, trainer: Trainer, step: int) -> dict[str, float]:
        return self._judge(trainer, step)

    def describe(self, step: int) -> str:
        """The ids of the documents that the step read."""
        first = (step - 1) * self._batch_sequences
        places = self._order.locate(range(first, first + self._batch_sequences))
        found: dict[str, None] = {}
        for domain, start in zip(places.domains, places.start_tokens, strict=True):
            name = self._order.domains[int(domain)]
            found |= dict.fromkeys(
                self._shards.document_ids(name, "train", int(start), self._plan.data.sequence_length + 1)
            )
        return "documents " + ", ".join(found)

    def write_samples(self, step: int) -> list[Row]:
        written = write_samples(self._model, self._tokenizer, self._job.trainer.samples, step)
        return [one.describe() for one in written]

    def results(self, last: Row, step: int) -> dict[str, Any]:
        epochs = self._order.epochs(step * self._batch_sequences)
        return {
            "domains": {
                domain: {
                    key: last[name]
                    for key in ("loss", "perplexity", "bits_per_byte")
                    if (name := metric_name(domain, key)) in last
                }
                | {"epochs": epochs[domain]}
                for domain in self._order.domains
            },
        }

    def export(self, state: dict[str, Tensor], folder: Path, record: RunRecord, *, finished: bool) -> None:
        """As a Hugging Face folder; positions as the phase that the run has reached reads them."""
        architecture = self._job.architecture
        phase = self._order.phases[self._order.phase_of(max(0, record.step * self._batch_sequences - 1))]
        if isinstance(architecture, TransformerConfig) and phase.rope_theta:
            architecture = dataclasses.replace(architecture, rope_theta=phase.rope_theta)
        with torch.device("meta"):
            model = LanguageModel(architecture)
        model.load_state_dict(module_weights(state, "model."), assign=True)
        card = write_card(record, self._order.phases[0].weights) if finished else None
        hf.save(model, self._tokenizer, folder, card=card)

    def draw(self, history: list[Row], folder: Path, title: str) -> list[Path]:
        return [draw_loss(history, list(self._order.domains), folder / "loss", title=title)]

    def totals(self, record: RunRecord) -> dict[str, float]:
        return {f"epochs/{domain}": values["epochs"] for domain, values in record.domains.items()}

    def _initial_model(self) -> LanguageModel:
        job = self._job
        if job.checkpoint is None:
            model = LanguageModel(job.architecture, seed=job.seed)
            initialize(model, job.architecture, job.seed, parametrization=job.parametrization)
        else:
            model, _ = load_checkpoint(job.checkpoint)
            if job.architecture.max_position_embeddings > model.config.max_position_embeddings:
                model.core.change_context(max_position_embeddings=job.architecture.max_position_embeddings)
            model.train()
        prepare_speed(job, model.core)
        return model
