"""Supervised fine-tuning: predict what the assistant says, its end of turn included, and nothing else.

The mean is over the completion tokens of a whole step, however it is split and packed (Ouyang et al. 2022, section
3.5).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.data.example_batches import ConversationBatch
from maquette.model import LanguageModel
from maquette.model.likelihoods import in_chunks, next_token_loss
from maquette.objectives.base import Metrics, Objective
from maquette.objectives.completions import completion_states, sample_completions
from maquette.objectives.config import SupervisedConfig


class SupervisedFineTuning(Objective):
    """Language modelling over the completions of `ConversationBatch`es."""

    model: LanguageModel
    config_class = SupervisedConfig

    def loss(self, batch: ConversationBatch) -> tuple[Tensor, Metrics]:
        hidden, targets = completion_states(self.model, batch)
        loss, _ = next_token_loss(
            hidden[None],
            self.model.head_weight,
            targets[None],
            logit_softcap=self.model.config.logit_softcap,
            divisor=batch.divisor,
        )
        return loss, {}

    def on_validation_epoch_start(self) -> None:
        self._sums = torch.zeros(3, dtype=torch.float64)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy in nats of every completion token, and whether it is the likeliest one: `(2, tokens)`."""

        def measured(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.model.logits(hidden).float()
            likeliest = logits.argmax(dim=-1) == targets
            return F.cross_entropy(logits, targets, reduction="none"), likeliest.float()

        values = torch.stack(
            in_chunks(measured, self.model.config.vocab_size, *completion_states(self.model, batch.batch))
        )
        if batch.counts:
            nats, right = values.double().cpu()
            self._sums += torch.stack([nats.sum(), right.sum(), torch.tensor(float(len(nats)), dtype=torch.float64)])
        return values

    def on_validation_epoch_end(self) -> None:
        nats, right, tokens = self.sum_over_processes(self._sums).tolist()
        data = self.datamodule
        values: dict[str, float] = data.progress(self.trainer.global_step)
        if tokens:
            values |= {
                "validation/loss": nats / tokens,
                "validation/perplexity": math.exp(min(nats / tokens, 700.0)),
                "validation/token_accuracy": right / tokens,
            }
        self.log_values(values)

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        """Answers to held-out prompts: of `prompts` nothing is taken, conversations have their own."""
        data = self.datamodule
        with torch.compiler.set_stance("force_eager"):
            prompts = data.prompts(self.config.sample_prompts, self.model.config.max_position_embeddings)
            completions = sample_completions(
                self.model, data.tokenizer, prompts,
                max_tokens=self.config.max_completion_length, temperature=0.0,
            )  # fmt: skip
        return [data.shown(completion) for completion in completions]
