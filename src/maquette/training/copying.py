"""The copying score of a model: which share of the loss on a run of tokens goes when it has been there before.

0: no copying; 1: what stood in the context once is predicted with certainty. It is measured when a run ends, for less
than a hundredth of its compute, so that laws can tell models that copy from models that do not yet.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from maquette.data import TokenShards, validation_batches
from maquette.data.copying import FIRST, KINDS, SECOND, SEQUENCES_OF_A_WINDOW, CopyingProbe, copying_probes
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.model.loading import load_checkpoint
from maquette.training.validation import judging, sum_over

MOST_WINDOWS = 64
"""Held-out windows of all domains together, at most: the score's standard error is then about .01."""

_COST = 0.01
_FORWARD = 1 / 3
_MEASURED = 1 / SEQUENCES_OF_A_WINDOW


def affordable_windows(tokens: int, context: int) -> int:
    """How many windows cost at most a hundredth of a run of `tokens`; at least one."""
    return max(1, min(MOST_WINDOWS, int(_COST * tokens / _FORWARD * _MEASURED / context)))


def probes_of(
    shards: TokenShards, domains: Iterable[str], *, context: int, windows: int, batch: int
) -> list[CopyingProbe]:
    """Probes from about `windows` validation windows, evenly from the domains that have text."""
    domains = [domain for domain in domains if shards.tokens("validation")[domain] > context]
    share = max(1, windows // max(1, len(domains)))
    rows = [
        found.tokens.numpy()
        for domain in domains
        for found in validation_batches(shards, domain, context, share * context, share)
    ]
    if not rows or shards.document_id is None:  # a probe begins as a document does
        return []
    return copying_probes(np.concatenate(rows), shards.document_id, batch)


def trained_copying(trainer: Trainer, probes: list[CopyingProbe]) -> dict[str, float]:
    """The metrics of the trainer's model, over all its processes; see `copying_metrics`."""
    with judging(trainer):
        sums = sum_over(
            trainer,
            [probe.batch for probe in probes],
            lambda number, cross_entropy: sums_of(probes[number], cross_entropy),
            2 * 2 * len(KINDS),
        )
    return copying_metrics(sums.view(len(KINDS), 2, 2))


@torch.no_grad()
def model_copying(model: LanguageModel, probes: list[CopyingProbe]) -> dict[str, float]:
    """The same of any model, in this process."""
    model.eval()
    sums = torch.zeros(2 * 2 * len(KINDS), dtype=torch.float64)
    for probe in probes:
        hidden = model.core(probe.batch.inputs)
        _, cross_entropy = next_token_loss(
            hidden, model.head_weight, probe.batch.targets, logit_softcap=model.config.logit_softcap
        )
        sums += sums_of(probe, cross_entropy)
    return copying_metrics(sums.view(len(KINDS), 2, 2))


def folder_copying(folder: Path, shards: TokenShards, *, context: int, windows: int = MOST_WINDOWS) -> dict[str, float]:
    """The same of an exported folder or a run's. Raises `StageError` where its tokenizer is not that of the tokens."""
    model, _ = load_checkpoint(folder, tokenizer_digest=shards.tokenizer_digest)
    return model_copying(model, probes_of(shards, shards.domains, context=context, windows=windows, batch=16))


def sums_of(probe: CopyingProbe, cross_entropy: Tensor) -> Tensor:
    """Nats and tokens of the first and of the second occurrences, in the row of the probe's kind, flat.

    `cross_entropy` (B, T) -> (len(KINDS) * 2 * 2,) float64.
    """
    nats = cross_entropy.double().cpu()
    sums = torch.zeros(len(KINDS), 2, 2, dtype=torch.float64)
    for place, mark in enumerate((FIRST, SECOND)):
        chosen = probe.marks == mark
        sums[KINDS.index(probe.kind), place] = torch.stack([nats[chosen].sum(), chosen.sum().double()])
    return sums.flatten()


def copying_metrics(sums: Tensor) -> dict[str, float]:
    """From (kinds, first and second, nats and tokens) to metrics by name.

    `copying/score`, of text repeated on purpose; `copying/random_score` and `copying/natural_score` likewise;
    `copying/first_loss` and `copying/second_loss` in nats per token of that text. A kind without tokens has no score.
    """
    values = {}
    for kind, ((first, first_tokens), (second, second_tokens)) in zip(KINDS, sums.tolist(), strict=True):
        if not first_tokens or not second_tokens or not first:
            continue
        before, after = first / first_tokens, second / second_tokens
        values[f"copying/{'' if kind == 'text' else f'{kind}_'}score"] = 1 - after / before
        if kind == "text":
            values |= {"copying/first_loss": before, "copying/second_loss": after}
    return values
