"""A reward model: one number for a completion of a prompt, learned from which of two completions people prefer.

The number is read at the completion's last real token, its end of turn (Stiennon et al. 2020, section 3.4); what stands
behind it is padding.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.data.example_batches import ConversationBatch, PreferenceBatch
from maquette.model.heads import ScalarModel
from maquette.objectives.base import Metrics, Objective
from maquette.objectives.config import RewardModelConfig
from maquette.objectives.losses import bradley_terry_loss, soft_preference_loss, win_lose_loss
from maquette.objectives.preferences import HeldOutPairs, preference_metrics, reward_metrics
from maquette.statistics.intervals import Reliability, reliability


class RewardModelling(Objective):
    """Bradley and Terry's model over `PreferenceBatch`es, or each answer by itself (`loss=binary`)."""

    model: ScalarModel
    config_class = RewardModelConfig
    scalar = True

    reliability: Reliability | None = None
    """Of the newest validation: predicted probabilities of preferences against their frequencies."""

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, Metrics]:
        chosen, rejected = self.rewards(batch)
        with torch.no_grad():
            metrics = reward_metrics(chosen, rejected)
        return self._loss(batch, chosen, rejected), metrics

    def rewards(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        """Of chosen and rejected completions, `(B,)` each."""
        chosen, rejected = last_scores(self.model, batch.rows()).chunk(2)
        return chosen, rejected

    def _loss(self, batch: PreferenceBatch, chosen: Tensor, rejected: Tensor) -> Tensor:
        config = self.config
        if config.loss == "binary":
            return win_lose_loss(chosen, rejected)
        if config.margin:
            margin = config.margin * torch.nan_to_num(batch.margin, nan=0.0)
            return bradley_terry_loss(chosen, rejected, margin=margin, centering=config.centering)
        probability = torch.where(batch.probability.isnan(), 1 - config.label_smoothing, batch.probability)
        loss = soft_preference_loss(chosen, rejected, probability)
        return loss + config.centering * (chosen + rejected).square().mean() if config.centering else loss

    # Validation -------------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._pairs = HeldOutPairs(2)

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Rewards of chosen and rejected completions: `(2, B)`."""
        rewards = torch.stack(self.rewards(batch.batch))
        self._pairs.add(batch, rewards)
        return rewards

    def on_validation_epoch_end(self) -> None:
        data = self.datamodule
        values: dict[str, float] = data.progress(self.trainer.global_step)
        if whole := len(data.validation) // 2:
            chosen, rejected = self._pairs.gathered(whole, self.sum_over_processes)
            # Which of the two is called the first is by chance, so that half of the probabilities are below a half.
            swapped = np.arange(whole) % 2 == 1
            difference = np.where(swapped, rejected - chosen, chosen - rejected)
            self.reliability = reliability(np.exp(-np.logaddexp(0.0, -difference)), ~swapped)
            values |= preference_metrics(data.validation, chosen, rejected)
            values["validation/loss"] = float(np.logaddexp(0.0, rejected - chosen).mean())  # Bradley and Terry's
            values["validation/calibration_error"] = self.reliability.error
        self.log_values(values)


def last_scores(model: ScalarModel, batch: ConversationBatch) -> Tensor:
    """The model's number at the last real token of each row: `(R,)` in float32."""
    hidden = model.core(batch.tokens)
    last = hidden[torch.arange(len(batch.lengths), device=hidden.device), batch.lengths - 1]  # (R, D)
    return F.linear(last, model.score.weight, model.score.bias).squeeze(-1).float()
