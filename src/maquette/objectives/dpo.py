"""Direct preference optimisation: raise the chosen completion, lower the rejected one, without sampling.

Rafailov et al. 2023, equation 7, and its relatives (preference_losses.py). The reference's log-probabilities come with
the batch, so the reference is not in memory while this trains. Neither has dropout.
"""

from typing import Any

import torch
from torch import Tensor, nn

from maquette.data.example_batches import PreferenceBatch
from maquette.model import LanguageModel
from maquette.objectives.base import Metrics, Objective
from maquette.objectives.completion_log_probs import completion_log_probs
from maquette.objectives.config import PreferenceConfig
from maquette.objectives.divergence import SampledCompletions, sampled_divergence
from maquette.objectives.losses import dpo_loss
from maquette.objectives.preference_validation import HeldOutPairs, preference_metrics

_SHOWN = 4


class DirectPreferenceOptimization(Objective):
    """DPO over `PreferenceBatch`es that have the reference's log-probabilities."""

    model: LanguageModel
    config_class = PreferenceConfig

    def set_model(self, model: nn.Module) -> None:
        super().set_model(model)
        self.train(True)

    def train(self, mode: bool = True) -> "DirectPreferenceOptimization":
        """Dropout stays off: it would be in the policy's log-probabilities and not in the reference's."""
        super().train(False)
        self.training = mode
        return self

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, Metrics]:
        losses, rewards, log_probs = self.preference_loss(batch)
        loss = losses.mean()
        if self.config.sft_weight:
            # The divisor counts the chosen completions' tokens of the whole step.
            loss = loss - self.config.sft_weight * log_probs[0].sum() / batch.answers.divisor
        (chosen, rejected), (chosen_log_probs, rejected_log_probs) = rewards, log_probs.detach()
        return loss, {
            "rewards/chosen": chosen.mean(),
            "rewards/rejected": rejected.mean(),
            "rewards/margins": (chosen - rejected).mean(),
            "rewards/accuracies": (chosen > rejected).float().mean(),
            "logps/chosen": chosen_log_probs.mean(),
            "logps/rejected": rejected_log_probs.mean(),
        }

    def preference_loss(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Losses `(B,)`; implicit rewards and summed log-probabilities of chosen and rejected completions, `(2, B)`."""
        assert batch.reference is not None
        summed, counts = completion_log_probs(self.model, batch.answers)
        policy, reference = summed, batch.reference
        if self.config.length_normalized:
            policy, reference = policy / counts, reference / counts
        losses, chosen, rejected = dpo_loss(
            *policy.chunk(2),
            *reference.chunk(2),
            beta=self.config.beta,
            variant=self.config.loss_type,
            label_smoothing=self.config.label_smoothing,
        )
        return losses, torch.stack([chosen, rejected]), torch.stack(summed.chunk(2))

    # Validation -------------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._pairs = HeldOutPairs(3)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Losses, and implicit rewards of chosen and rejected completions: `(3, B)`."""
        losses, rewards, _ = self.preference_loss(batch.batch)
        found = torch.cat([losses[None], rewards])
        self._pairs.add(batch, found)
        return found

    def on_validation_epoch_end(self) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        values: dict[str, float] = data.progress(self.trainer.global_step)
        if len(data.validation):
            losses, chosen, rejected = self._pairs.gathered(len(data.validation) // 2, self.sum_over_processes)
            values |= preference_metrics(data.validation, chosen, rejected) | {
                "validation/loss": float(losses.mean()),
                "validation/rewards/chosen": float(chosen.mean()),
                "validation/rewards/rejected": float(rejected.mean()),
            }
        self._sampled: SampledCompletions | None = None
        if self.trainer.is_global_zero and not data.is_sharded:
            values |= self._sample(data)
        self.log_values(values)

    def _sample(self, data: Any) -> dict[str, float]:
        """KL from the reference, on the policy's own completions. The reference comes back for this, and leaves."""
        prompts = data.prompts(self.config.sample_prompts, self.model.config.max_position_embeddings)
        if not prompts:
            return {}
        self._sampled = sampled_divergence(
            self.model, data.reference_model().to(self.model.head_weight), data.tokenizer, prompts,
            max_tokens=self.config.max_completion_length, seed=self.description.get("seed", 0),
        )  # fmt: skip
        return self._sampled.describe() if self._sampled.answers else {}

    def write_samples(self, prompts: Any) -> list[dict[str, Any]]:
        """Some of the completions that the divergence was measured on."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        answers = self._sampled.answers[:_SHOWN] if self._sampled is not None else []
        return [data.shown(answer) for answer in answers]
