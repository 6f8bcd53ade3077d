"""Supervised fine-tuning as a workload, judged by how well held-out answers are predicted."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor

from maquette.data.example_batches import ConversationBatch, conversation_batches
from maquette.model import LanguageModel, hf
from maquette.model.loading import load_checkpoint
from maquette.objectives import SupervisedFineTuning
from maquette.objectives.config import SupervisedConfig
from maquette.objectives.rollouts import sample_answers
from maquette.training.assembly import module_weights, prepare_optimization
from maquette.training.examples import ExampleWorkload, in_parts
from maquette.training.record import RunRecord
from maquette.training.validation import judging, sum_over
from maquette.training.workload import Row


class SupervisedTraining(ExampleWorkload):
    """Answers are imitated."""

    curves = (
        ("loss (nats per answer token)", ("train/loss", "validation/loss")),
        ("likeliest token is right", ("validation/token_accuracy",)),
    )

    def _open(self) -> None:
        assert isinstance(self.plan.objective, SupervisedConfig) and self.job.checkpoint is not None
        self.settings = self.plan.objective
        self.model, _ = load_checkpoint(self.job.checkpoint, tokenizer_digest=self.tokenizer.digest)
        self.core = self.model.core
        self.objective = SupervisedFineTuning(self.model.train(), prepare_optimization(self.job), self.settings)

    def _make(self, indices: NDArray[np.int64], parts: int) -> Sequence[ConversationBatch]:
        return conversation_batches(self.training, indices, parts, packed=self.settings.packing)

    def _validate(self, trainer: Trainer) -> dict[str, float]:
        groups = in_parts(len(self.validation), self.settings.batch_size)
        batches = [conversation_batches(self.validation, group, 1, packed=self.settings.packing)[0] for group in groups]

        def add(number: int, judged: Tensor) -> Tensor:
            nats, right = judged.double().cpu()
            return torch.stack([nats.sum(), right.sum(), torch.tensor(float(len(nats)), dtype=torch.float64)])

        with judging(trainer):
            nats, right, tokens = sum_over(trainer, batches, add, 3).tolist()
        loss = nats / tokens
        return {
            "validation/loss": loss,
            "validation/perplexity": math.exp(min(loss, 700.0)),
            "validation/token_accuracy": right / tokens,
        }

    def write_samples(self, step: int) -> list[Row]:
        prompts = self.prompts(self.settings.sample_prompts)
        with torch.compiler.set_stance("force_eager"):
            answers = sample_answers(
                self.model, self.tokenizer, prompts, max_tokens=self.settings.max_completion_length, temperature=0.0
            )
        return [self.shown(answer, step) for answer in answers]

    def export(self, state: dict[str, Tensor], folder: Path, record: RunRecord, *, finished: bool) -> None:
        model = language_model_of(self.model, state)
        hf.save(model, self.tokenizer, folder, card=self.card(record, finished=finished))


def language_model_of(like: LanguageModel, state: dict[str, Tensor]) -> LanguageModel:
    """A language model of the same shape with the weights of an objective's state."""
    with torch.device("meta"):
        model = LanguageModel(like.config)
    model.load_state_dict(module_weights(state, "model."), assign=True)
    return model
