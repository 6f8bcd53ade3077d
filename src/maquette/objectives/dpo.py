"""Direct preference optimisation: raise the wanted answer, lower the unwanted one, without sampling.

Rafailov et al. 2023, equation 7, and its relatives (preference_losses.py). The reference's log-probabilities come with
the batch, so the reference is not in memory while this trains. Neither has dropout.
"""

import torch
from torch import Tensor

from maquette.data.example_batches import PreferenceBatch
from maquette.model import LanguageModel
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.config import PreferenceConfig
from maquette.objectives.losses import dpo_loss
from maquette.objectives.sft import answer_log_probs


class DirectPreferenceOptimization(Objective):
    """DPO over `PreferenceBatch`es that have the reference's log-probabilities."""

    model: LanguageModel

    def __init__(self, model: LanguageModel, optimization: Optimization, config: PreferenceConfig) -> None:
        super().__init__(model, optimization)
        self.config = config
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
            # The divisor counts the wanted answers' tokens of the whole step.
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

    def judge(self, batch: PreferenceBatch) -> Tensor:
        """Losses, and implicit rewards of wanted and unwanted answers: `(3, B)`."""
        losses, rewards, _ = self.preference_loss(batch)
        return torch.cat([losses[None], rewards])

    def preference_loss(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Losses `(B,)`; implicit rewards and summed log-probabilities of wanted and unwanted answers, `(2, B)`."""
        assert batch.reference is not None
        summed, counts = answer_log_probs(self.model, batch.answers)
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
