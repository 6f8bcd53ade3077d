"""How far a policy is from its reference, on answers that the policy has sampled."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from maquette.artifacts import StageError
from maquette.model import LanguageModel
from maquette.objectives.rewards import Completion
from maquette.objectives.rollouts import trajectories_of


def divergences(
    model: LanguageModel,
    reference: LanguageModel,
    answers: Sequence[Completion],
    *,
    temperature: float = 1.0,
    batch: int = 128,
) -> NDArray[np.float64]:
    """Divergence from the reference along each answer, in nats: the sum over its tokens of KL(policy || reference) of
    the whole distribution there. Its mean over the policy's own samples is the divergence between the two, with less
    variance than the log-ratio of the sampled tokens.

    Raises `StageError` where the two read different tokens.
    """
    if model.config.vocab_size != reference.config.vocab_size:
        raise StageError("Policy and reference have different vocabularies: no divergence can be told.")
    sums = np.zeros(len(answers))
    for start in range(0, len(answers), batch):
        rows = trajectories_of(answers[start : start + batch], model.head_weight.device)
        with torch.inference_mode():
            mine, theirs = (
                (one.logits(one.core(rows.tokens)[:, :-1][rows.mask]).float() / temperature).log_softmax(-1)
                for one in (model, reference)
            )
            each = (mine.exp() * (mine - theirs)).sum(-1)
            whose = rows.mask.nonzero()[:, 0]
            found = torch.zeros(len(rows), dtype=each.dtype, device=each.device).index_add_(0, whose, each)
        sums[start : start + len(rows)] = found.double().cpu().numpy()
    return sums
