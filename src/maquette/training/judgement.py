"""What validation tells of a run: losses by domain, and one number over all of them."""

import math
import re
from collections.abc import Mapping

import numpy as np
from lightning.pytorch import Trainer

from maquette.data import MixtureOrder, TokenShards, validation_batches
from maquette.data.config import DataConfig
from maquette.training.copying import affordable_windows, probes_of, trained_copying
from maquette.training.job import Job
from maquette.training.validation import DomainLoss, validate

_COST = 0.03
"""Validation before the last takes at most this share of the training compute."""

_FORWARD = 1 / 3
"""A forward pass, as a share of a training step's FLOPs."""

_NOT_IN_NAMES = re.compile(r"[^\w./ :-]")


def metric_name(domain: str, key: str) -> str:
    """The name under which a domain's `loss`, `perplexity` or `bits_per_byte` is recorded."""
    return f"validation/{_NOT_IN_NAMES.sub('_', domain)}/{key}"


class Judge:
    """Validates a run's model. The last time reads `validation_tokens` of every domain, earlier ones perhaps fewer."""

    def __init__(
        self,
        job: Job,
        data: DataConfig,
        shards: TokenShards,
        order: MixtureOrder,
        byte_lengths: np.ndarray,
        micro_batch_size: int,
    ) -> None:
        self._job, self._data, self._shards, self._order = job, data, shards, order
        self._byte_lengths, self._micro_batch = byte_lengths, micro_batch_size
        self.losses: dict[str, DomainLoss] = {}

    def tokens_of_each_domain(self, step: int) -> int:
        """How many tokens of each domain are read after `step`."""
        wished = self._data.validation_tokens
        runs = len(self._job.validation_steps) - 1
        if step >= self._job.steps or not runs:
            return wished
        affordable = _COST * self._job.tokens / _FORWARD / runs / len(self._order.domains)
        return min(wished, max(self._data.sequence_length, int(affordable)))

    def __call__(self, trainer: Trainer, step: int) -> dict[str, float]:
        """The values to record: `validation/loss` and so on, and the same for each domain."""
        data, tokens = self._data, self.tokens_of_each_domain(step)
        batches = {
            domain: found
            for domain in self._order.domains
            if (
                found := validation_batches(
                    self._shards, domain, data.sequence_length, tokens, self._micro_batch,
                    document_masking=data.document_masking,
                )
            )
        }  # fmt: skip
        self.losses = validate(trainer, batches, self._byte_lengths)
        values = overall(self.losses, self._order.phases[0].weights)
        for domain, loss in self.losses.items():
            values |= {metric_name(domain, key): value for key, value in loss.describe().items()}
        if step >= self._job.steps:
            values |= self._copying(trainer)
        return {"tokens": step * self._job.batch_size_tokens, **values}

    def _copying(self, trainer: Trainer) -> dict[str, float]:
        """How much the model copies from its context; nothing where there is no held-out text."""
        context = self._data.sequence_length
        probes = probes_of(
            self._shards,
            self._order.domains,
            context=context,
            windows=affordable_windows(self._job.tokens, context),
            batch=self._micro_batch,
        )
        return trained_copying(trainer, probes) if probes else {}


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
    # Tokens that came without a tokenizer stand for no known number of bytes.
    return values | ({"validation/bits_per_byte": nats / (math.log(2) * size)} if size else {})
