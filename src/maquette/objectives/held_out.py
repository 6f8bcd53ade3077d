"""What validation says of a language model: losses by domain and by kind of token, one number over all of them, and
how much it copies."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from maquette.data import TokenShards
from maquette.data.copying import FIRST, KINDS, SECOND, TOKEN_KINDS, CopyingProbe
from maquette.data.pretraining_data import MOST_WINDOWS, probes_of
from maquette.model import LanguageModel
from maquette.model.likelihoods import next_token_loss
from maquette.model.loading import load_checkpoint

_NOT_IN_NAMES = re.compile(r"[^\w./ :-]")


@dataclass(frozen=True)
class DomainLoss:
    """Sums over one domain's predicted tokens: `nats` of cross-entropy, `tokens`, the `bytes` they stand for. `kinds`:
    nats and tokens of each of `TOKEN_KINDS`, where they were told apart."""

    nats: float
    tokens: int
    bytes: int
    kinds: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, sums: Tensor) -> "DomainLoss":
        """From `domain_sums`."""
        nats, tokens, size, *kinds = sums.tolist()
        return cls(nats, int(tokens), int(size), tuple(zip(kinds[::2], kinds[1::2], strict=True)))

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


def domain_sums(cross_entropy: Tensor, bytes: int, kinds: Tensor | None = None) -> Tensor:
    """Nats, tokens and bytes of a batch, and with `kinds` (B, T) nats and tokens of each of `TOKEN_KINDS` besides:
    `cross_entropy` (B, T) -> (3,) or (9,) float64."""
    nats = cross_entropy.double()
    whole = torch.tensor([nats.sum().item(), nats.numel(), bytes], dtype=torch.float64)
    if kinds is None:
        return whole
    where = kinds.long().cpu().ravel()
    parts = [torch.bincount(where, weights, len(TOKEN_KINDS)).double() for weights in (nats.cpu().ravel(), None)]
    return torch.cat([whole, torch.stack(parts, dim=1).ravel()])


def metric_name(domain: str, key: str) -> str:
    """The name under which a domain's `loss`, `perplexity` or `bits_per_byte` is recorded."""
    return f"validation/{_NOT_IN_NAMES.sub('_', domain)}/{key}"


def overall(losses: Mapping[str, DomainLoss], weights: Mapping[str, float]) -> dict[str, float]:
    """Loss, perplexity and bits per byte of text mixed as in training: domains weighed by `weights`, which count only
    among domains that were validated; and of each kind of token its loss and its share in the text, which give the loss
    again. Empty where none was validated."""
    known = {domain: weights.get(domain, 0.0) for domain in losses}
    total = sum(known.values())
    if total == 0:
        known, total = dict.fromkeys(losses, 1.0), float(len(losses))
    if not losses:
        return {}
    nats = sum(weight * losses[domain].loss for domain, weight in known.items()) / total
    size = sum(weight * losses[domain].bytes / losses[domain].tokens for domain, weight in known.items()) / total
    values = {"validation/loss": nats, "validation/perplexity": math.exp(min(nats, 700.0))}
    values |= {"validation/bits_per_byte": nats / (math.log(2) * size)} if size else {}
    if not all(losses[domain].kinds for domain in known):
        return values
    for place, kind in enumerate(TOKEN_KINDS):
        of_kind, share = (
            sum(weight * losses[domain].kinds[place][which] / losses[domain].tokens for domain, weight in known.items())
            / total
            for which in (0, 1)
        )
        values |= {f"token_kinds/{kind}_share": share} | (
            {f"token_kinds/{kind}_loss": of_kind / share} if share else {}
        )
    return values


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
