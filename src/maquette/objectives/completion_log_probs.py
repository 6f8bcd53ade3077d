"""What a language model makes of completions: the states before their tokens, and their log-probabilities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.data.example_batches import ConversationBatch
from maquette.model import LanguageModel


def completion_states(model: LanguageModel, batch: ConversationBatch) -> tuple[Tensor, Tensor]:
    """The hidden state before every token that counts, `(tokens, D)`, and the token, `(tokens,)`, in the batch's order.

    Logits of the other tokens are never computed: of a conversation they are most."""
    segments = None if batch.segments is None else batch.segments[:, :-1]
    positions = None if batch.positions is None else batch.positions[:, :-1]
    hidden = model.core(batch.inputs, segments=segments, positions=positions)
    return hidden[batch.mask], batch.targets[batch.mask]


def completion_log_probs(model: LanguageModel, batch: ConversationBatch) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's completion, and how many tokens it has: `(R,)` each. For rows of one example."""
    hidden, targets = completion_states(model, batch)
    log_probs = -F.cross_entropy(model.logits(hidden).float(), targets, reduction="none")
    counts = batch.mask.sum(dim=1)
    rows = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return log_probs.new_zeros(len(counts)).index_add(0, rows, log_probs), counts
