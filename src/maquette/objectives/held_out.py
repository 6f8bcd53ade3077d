"""What validation says of a language model: losses by domain, one number over all of them, and how much it copies."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from maquette.data import TokenShards
from maquette.data.copying import FIRST, KINDS, SECOND, CopyingProbe
from maquette.data.pretraining_data import MOST_WINDOWS, probes_of
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.model.loading import load_checkpoint

_NOT_IN_NAMES = re.compile(r"[^\w./ :-]")


@dataclass(frozen=True)
class DomainLoss:
    """Sums over one domain's predicted tokens: `nats` of cross-entropy, `tokens`, the `bytes` they stand for."""

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return self.nats / (math.log(2) * max(1, self.bytes))

    def describe(self) -> dict[str, float]:
        values = {"loss": self.loss, "perplexity": self.perplexity}
        return values | ({"bits_per_byte": self.bits_per_byte} if self.bytes else {})


def metric_name(domain: str, key: str) -> str:
    """The name under which a domain's `loss`, `perplexity` or `bits_per_byte` is recorded."""
    return f"validation/{_NOT_IN_NAMES.sub('_', domain)}/{key}"


def overall(losses: Mapping[str, DomainLoss], weights: Mapping[str, float]) -> dict[str, float]:
    """Loss, perplexity and bits per byte of text mixed as in training: domains weighed by `weights`, which count only
    among domains that were validated. Empty where none was."""
    known = {domain: weights.get(domain, 0.0) for domain in losses}
    total = sum(known.values())
    if total == 0:
        known, total = dict.fromkeys(losses, 1.0), float(len(losses))
    if not losses:
        return {}
    nats = sum(weight * losses[domain].loss for domain, weight in known.items()) / total
    size = sum(weight * losses[domain].bytes / losses[domain].tokens for domain, weight in known.items()) / total
    values = {"validation/loss": nats, "validation/perplexity": math.exp(min(nats, 700.0))}
    return values | ({"validation/bits_per_byte": nats / (math.log(2) * size)} if size else {})


def sums_of(kind: str, marks: Tensor, cross_entropy: Tensor) -> Tensor:
    """Nats and tokens of the first and of the second occurrences, in the row of the probe's kind: `marks` and
    `cross_entropy` (B, T) -> (len(KINDS), 2, 2) float64.
    """
    nats = cross_entropy.double().cpu()
    sums = torch.zeros(len(KINDS), 2, 2, dtype=torch.float64)
    for place, mark in enumerate((FIRST, SECOND)):
        chosen = marks.cpu() == mark
        sums[KINDS.index(kind), place] = torch.stack([nats[chosen].sum(), chosen.sum().double()])
    return sums


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


@torch.no_grad()
def model_copying(model: LanguageModel, probes: list[CopyingProbe]) -> dict[str, float]:
    """The metrics of any model, in this process; see `copying_metrics`. 0: no copying; 1: what stood in the context
    once is predicted with certainty. A run measures its own at its last validation."""
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
