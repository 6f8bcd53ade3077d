"""A reward model: one number for an answer to a prompt, learned from which of two answers people prefer.

The number is read at the answer's last real token, its end of turn (Stiennon et al. 2020, section 3.4); what stands
behind it is padding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.data.example_batches import ConversationBatch, PreferenceBatch
from maquette.model import ScalarModel
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.config import RewardConfig
from maquette.objectives.losses import bradley_terry_loss, soft_preference_loss, win_lose_loss


class RewardModelling(Objective):
    """Bradley and Terry's model over `PreferenceBatch`es, or each answer by itself (`loss=binary`)."""

    model: ScalarModel

    def __init__(self, model: ScalarModel, optimization: Optimization, config: RewardConfig) -> None:
        super().__init__(model, optimization)
        self.config = config

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, Metrics]:
        chosen, rejected = self.rewards(batch)
        with torch.no_grad():
            metrics = {
                "rewards/chosen": chosen.mean(),
                "rewards/rejected": rejected.mean(),
                "rewards/margins": (chosen - rejected).mean(),
                "rewards/accuracies": (chosen > rejected).float().mean(),
            }
        return self._loss(batch, chosen, rejected), metrics

    def judge(self, batch: PreferenceBatch) -> Tensor:
        """Rewards of wanted and unwanted answers: `(2, B)`."""
        return torch.stack(self.rewards(batch))

    def rewards(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
        """Of wanted and unwanted answers, `(B,)` each."""
        chosen, rejected = last_scores(self.model, batch.answers).chunk(2)
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


def last_scores(model: ScalarModel, batch: ConversationBatch) -> Tensor:
    """The model's number at the last real token of each row: `(R,)` in float32."""
    hidden = model.core(batch.tokens)
    last = hidden[torch.arange(len(batch.lengths), device=hidden.device), batch.lengths - 1]  # (R, D)
    return F.linear(last, model.score.weight, model.score.bias).squeeze(-1).float()
