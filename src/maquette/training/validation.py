"""Validation: how well held-out text is predicted, domain by domain."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
        known = {"loss": self.loss, "perplexity": self.perplexity}
        return known | ({"bits_per_byte": self.bits_per_byte} if self.bytes else {})


def validate(
    trainer: Trainer, domains: Mapping[str, Iterable[TokenBatch]], byte_lengths: np.ndarray
) -> dict[str, DomainLoss]:
    """The loss of every domain's batches under the trainer's objective, in evaluation mode.

    `byte_lengths (V,)`: bytes of text that each token stands for. Every process takes its share of the batches and all
    get the sums. Compiled blocks run eagerly: validation has shapes of its own, and compiling for them would not pay.
    """
    with judging(trainer):
        sums = {name: _sum(trainer, batches, byte_lengths) for name, batches in domains.items()}
    return {name: DomainLoss(float(row[0]), int(row[1]), int(row[2])) for name, row in sums.items()}


@contextlib.contextmanager
def judging(trainer: Trainer) -> Iterator[None]:
    """The trainer's model in evaluation mode, its compiled blocks eager."""
    objective = trainer.lightning_module
    was_training = objective.training
    objective.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        yield
    objective.train(was_training)


def _sum(trainer: Trainer, batches: Iterable[TokenBatch], byte_lengths: np.ndarray) -> Tensor:
    """(nats, tokens, bytes) over all processes, float64."""
    batches = list(batches)

    def add(number: int, cross_entropy: Tensor) -> Tensor:
        targets = batches[number].targets
        num_bytes = int(byte_lengths[targets.numpy()].sum())
        nats = cross_entropy.double().sum().cpu()
        return torch.stack([nats, *torch.tensor([targets.numel(), num_bytes], dtype=torch.float64)])

    return sum_over(trainer, batches, add, 3)


def sum_over(trainer: Trainer, batches: Sequence[Any], add: Callable[[int, Tensor], Tensor], size: int) -> Tensor:
    """The sum over all batches and processes of `add(number of the batch, what the objective judges)`, (size,)."""
    sums = torch.zeros(size, dtype=torch.float64)
    for start in range(0, len(batches), trainer.world_size):
        # With sharded weights every process has to take part in every round, in the last one perhaps for nothing.
        mine = start + trainer.global_rank
        cross_entropy = _judge(trainer, batches[min(mine, len(batches) - 1)])
        if mine < len(batches):
            sums += add(mine, cross_entropy)
    return reduce_sum(trainer, sums)


def _judge(trainer: Trainer, batch: Any) -> Tensor:
    """Through the strategy, which knows how the weights lie, and with the precision of training."""
    on_device = trainer.lightning_module.transfer_batch_to_device(batch, trainer.strategy.root_device, 0)
    cross_entropy: Any = trainer.strategy.validation_step(on_device, 0)
    return cross_entropy


def reduce_sum(trainer: Trainer, values: Tensor) -> Tensor:
    """The sum over all processes, on the processor."""
    if trainer.world_size == 1:
        return values
    return trainer.strategy.reduce(values.to(trainer.strategy.root_device), reduce_op="sum").cpu()
