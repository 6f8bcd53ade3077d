"""Validation: how well held-out text is predicted, domain by domain."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from maquette.data import TokenBatch


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
        return {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}


@torch.no_grad()
def validate(
    trainer: Trainer, domains: Mapping[str, Iterable[TokenBatch]], byte_lengths: np.ndarray
) -> dict[str, DomainLoss]:
    """The loss of every domain's batches under the trainer's objective, in evaluation mode.

    `byte_lengths (V,)`: bytes of text that each token stands for. Every process takes its share of the batches and all
    get the sums. Compiled blocks run eagerly: validation has shapes of its own, and compiling for them would not pay.
    """
    objective = trainer.lightning_module
    was_training = objective.training
    objective.eval()
    with torch.compiler.set_stance("force_eager"):
        sums = {name: _sum(trainer, batches, byte_lengths) for name, batches in domains.items()}
    objective.train(was_training)
    return {name: DomainLoss(float(row[0]), int(row[1]), int(row[2])) for name, row in sums.items()}


def _sum(trainer: Trainer, batches: Iterable[TokenBatch], byte_lengths: np.ndarray) -> Tensor:
    """(nats, tokens, bytes) over all processes, float64."""
    sums = torch.zeros(3, dtype=torch.float64)
    batches = list(batches)
    for start in range(0, len(batches), trainer.world_size):
        # With sharded weights every process has to take part in every round, in the last one perhaps for nothing.
        mine = start + trainer.global_rank
        batch = batches[min(mine, len(batches) - 1)]
        cross_entropy = _judge(trainer, batch)
        if mine < len(batches):
            targets = batch.targets
            sums[0] += cross_entropy.double().sum().cpu()
            sums[1] += targets.numel()
            sums[2] += int(byte_lengths[targets.numpy()].sum())
    return reduce_sum(trainer, sums)


def _judge(trainer: Trainer, batch: TokenBatch) -> Tensor:
    """Through the strategy, which knows how the weights lie, and with the precision of training."""
    on_device = trainer.lightning_module.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
    cross_entropy: Any = trainer.strategy.validation_step(on_device, 0)
    return cross_entropy


def reduce_sum(trainer: Trainer, values: Tensor) -> Tensor:
    """The sum over all processes, on the processor."""
    if trainer.world_size == 1:
        return values
    return trainer.strategy.reduce(values.to(trainer.strategy.root_device), reduce_op="sum").cpu()
