"""The copying score of a model that is there already: an exported folder, or a run's.

0: no copying; 1: what stood in the context once is predicted with certainty. A run measures its own at its last
validation, for less than a hundredth of its compute, so that laws can tell models that copy from those that do not yet.
"""

from pathlib import Path

import torch

from maquette.data import TokenShards
from maquette.data.copying import KINDS, CopyingProbe
from maquette.data.pretraining_data import MOST_WINDOWS, probes_of
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.model.loading import load_checkpoint
from maquette.objectives.held_out import copying_metrics, sums_of


@torch.no_grad()
def model_copying(model: LanguageModel, probes: list[CopyingProbe]) -> dict[str, float]:
    """The metrics of any model, in this process; see `copying_metrics`."""
    model.eval()
    sums = torch.zeros(len(KINDS), 2, 2, dtype=torch.float64)
    for probe in probes:
        hidden = model.core(probe.batch.inputs)
        _, cross_entropy = next_token_loss(
            hidden, model.head_weight, probe.batch.targets, logit_softcap=model.config.logit_softcap
        )
        sums += sums_of(probe.kind, probe.marks, cross_entropy)
    return copying_metrics(sums)


def folder_copying(folder: Path, shards: TokenShards, *, context: int, windows: int = MOST_WINDOWS) -> dict[str, float]:
    """The same of an exported folder or a run's. Raises `StageError` where its tokenizer is not that of the tokens."""
    model, _ = load_checkpoint(folder, tokenizer_digest=shards.tokenizer_digest)
    return model_copying(model, probes_of(shards, shards.domains, context=context, windows=windows, batch=16))
