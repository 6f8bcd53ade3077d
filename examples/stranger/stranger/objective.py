"""An objective: next-token prediction that looks harder at what the model does not know yet."""

from dataclasses import dataclass

import torch.nn.functional as F

from maquette.objectives import Pretraining
from maquette.objectives.config import PretrainConfig
from maquette.objectives.pretrain import as_tokens


@dataclass
class FocalConfig(PretrainConfig):
    gamma: float = 1.0


class FocalLoss(Pretraining):
    """(1 - p)^gamma x cross-entropy (Lin et al. 2017), for language: validation stays plain cross-entropy."""

    config_class = FocalConfig

    def loss(self, batch):
        batch = as_tokens(batch)
        logits = self.model(batch.inputs, segments=batch.segments)  # (B, T, V)
        nats = F.cross_entropy(logits.transpose(1, 2), batch.targets, reduction="none")
        unsure = 1 - (-nats.detach()).exp()
        return (unsure**self.config.gamma * nats).mean(), {"train/cross_entropy": nats.detach().mean()}
