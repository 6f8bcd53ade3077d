"""Supervised fine-tuning: predict what the assistant says, its end of turn included, and nothing else.

The mean is over the answer tokens of a whole step, however it is split and packed (Ouyang et al. 2022, section 3.5).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.data.example_batches import ConversationBatch
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.objectives.base import Metrics, Objective, Optimization
from maquette.objectives.config import SupervisedConfig


class SupervisedFineTuning(Objective):
    """Language modelling over the answers of `ConversationBatch`es."""

    model: LanguageModel

    def __init__(self, model: LanguageModel, optimization: Optimization, config: SupervisedConfig) -> None:
        super().__init__(model, optimization)
        self.config = config

    def loss(self, batch: ConversationBatch) -> tuple[Tensor, Metrics]:
        hidden, targets = answer_states(self.model, batch)
        loss, _ = next_token_loss(
            hidden[None],
            self.model.head_weight,
            targets[None],
            logit_softcap=self.model.config.logit_softcap,
            divisor=batch.divisor,
        )
        return loss, {}

    def judge(self, batch: ConversationBatch) -> Tensor:
        """Cross-entropy in nats of every answer token, and whether it is the likeliest one: `(2, tokens)`."""
        hidden, targets = answer_states(self.model, batch)
        logits = self.model.logits(hidden).float()
        likeliest = logits.argmax(dim=-1) == targets
        return torch.stack([F.cross_entropy(logits, targets, reduction="none"), likeliest.float()])


def answer_states(model: LanguageModel, batch: ConversationBatch) -> tuple[Tensor, Tensor]:
    """The hidden state before every token that counts, `(tokens, D)`, and the token, `(tokens,)`, in the batch's order.

    Logits of the other tokens are never computed: of a conversation they are most."""
    segments = None if batch.segments is None else batch.segments[:, :-1]
    positions = None if batch.positions is None else batch.positions[:, :-1]
    hidden = model.core(batch.inputs, segments=segments, positions=positions)
    return hidden[batch.mask], batch.targets[batch.mask]


def answer_log_probs(model: LanguageModel, batch: ConversationBatch) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's answer, and how many tokens it has: `(R,)` each. For rows of one example."""
    hidden, targets = answer_states(model, batch)
    log_probs = -F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
    counts = batch.mask.sum(dim=1)
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return log_probs.new_zeros(len(counts)).index_add(0, rows, log_probs), counts
