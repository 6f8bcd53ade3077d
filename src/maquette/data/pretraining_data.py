"""Pretraining's text as a LightningDataModule: the mixture's order of training sequences, held-out text by domain."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from maquette.artifacts import ConfigError
from maquette.data.batches import (
    TensorBatch,
    TokenBatch,
    TrainingBatches,
    document_ids,
    validation_batches,
)
from maquette.data.config import DataConfig, MixtureConfig
from maquette.data.copying import SEQUENCES_OF_A_WINDOW, CopyingProbe, copying_probes, token_kinds
from maquette.data.mixture import MixtureOrder
from maquette.data.process_group import data_place, of_the_first
from maquette.data.shards import TokenShards, unigram_entropy

if TYPE_CHECKING:
    from maquette.text import Tokenizer

_FORWARD = 1 / 3
"""A forward pass, as a share of a training step's FLOPs."""

_VALIDATION_COST = 0.03
"""Validation before the last takes at most this share of the training compute."""

_GPU_WORKERS = 2
"""Processes that read batches where a GPU waits for them: reads are scattered over the shards."""

_COPYING_COST = 0.01
_VALIDATION_BATCH = 4096
"""Tokens in one batch of held-out text, at least: without gradients they need little memory, and Lightning's evaluation
loop costs about 0.6 ms a batch (2.6)."""

MOST_WINDOWS = 64
"""Held-out windows of all domains together that copying is measured on, at most: the score's standard error is then
about .01."""


@dataclasses.dataclass
class HeldOutBatch(TensorBatch):
    """`tokens` of one `domain`, and the `bytes` of text that its targets stand for (0: unknown). `marks (B, T)`:
    of copying probes, whose kind is in `domain`. `kinds (B, T)`: of each target its place in `TOKEN_KINDS`, in the last
    validation. `counts`: whether it is this process's to count."""

    tokens: TokenBatch
    domain: str
    bytes: int = 0
    marks: torch.Tensor | None = None
    kinds: torch.Tensor | None = None
    counts: bool = True


class HeldOutLoader:
    """Calls `make()` at each validation: how much is read depends on the step. Without a length, so that Lightning asks
    again each time. Every process takes its share of the batches; with sharded weights all of them have to take part in
    every round, so the last one may be given a batch that does not count."""

    def __init__(self, make: Callable[[], Sequence[HeldOutBatch]], rank: int = 0, world_size: int = 1) -> None:
        self._make, self._rank, self._world_size = make, rank, world_size

    def __iter__(self) -> Iterator[HeldOutBatch]:
        batches = self._make()
        for start in range(0, len(batches), self._world_size):
            mine = start + self._rank
            chosen = batches[min(mine, len(batches) - 1)]
            yield chosen if mine < len(batches) else dataclasses.replace(chosen, counts=False)


class PretrainingData(LightningDataModule):
    """Token shards in `folder`, read in the order of (mixture, seed, phase, sequence).

    `batch_sequences`: sequences of one context in a step, over all processes; `micro_batch_size`: those of one forward
    pass of one process. The last validation reads `data.validation_tokens` of every domain, earlier ones
    (`validations` in all) perhaps fewer.
    """

    def __init__(
        self,
        folder: Path | str,
        tokenizer: "Tokenizer",
        *,
        data: DataConfig,
        mixture: MixtureConfig,
        batch_sequences: int,
        micro_batch_size: int,
        steps: int,
        seed: int,
        validations: int = 1,
    ) -> None:
        super().__init__()
        self.folder, self.tokenizer, self.settings, self.mixture = Path(folder), tokenizer, data, mixture
        self.batch_sequences, self.micro_batch_size, self.steps = batch_sequences, micro_batch_size, steps
        self.seed, self.validations, self.context = seed, validations, data.sequence_length
        self.tokens = steps * batch_sequences * data.sequence_length
        self.shards: TokenShards | None = None

    def setup(self, stage: str | None = None) -> None:
        """Opens the shards, whose bytes the first process checks. Raises `StageError` where they are damaged."""
        if self.shards is not None:
            return
        of_the_first(lambda: TokenShards(self.folder, self.tokenizer.digest) and None)  # may take an hour
        self.shards = TokenShards(self.folder, self.tokenizer.digest, verify=False)
        self.order = MixtureOrder(
            self.mixture, self.shards.tokens("train"), context=self.context, token_budget=self.tokens, seed=self.seed
        )

    @property
    def validation_weights(self) -> Mapping[str, float]:
        """The domains' shares in the training text, by which validation weighs them."""
        return self.order.phases[0].weights

    def unigram_entropy(self) -> float | None:
        """Of the training text as the mixture weighs it, nats per token; None where the tokens do not tell theirs."""
        shards, weights = self._opened(), self.validation_weights
        tokens, known = shards.tokens("train"), shards.manifest.facts.get("unigram_entropy")
        total, whole = sum(tokens.values()), sum(weights.values())
        proportional = all(
            math.isclose(weights.get(domain, 0.0) / whole, count / total, rel_tol=1e-6)
            for domain, count in tokens.items()
        )
        if known is None or proportional:
            return known
        streams = {domain: shards.stream(domain) for domain in tokens}
        return unigram_entropy(streams, self.tokenizer.vocab_size, weights)

    def train_dataloader(self) -> TrainingBatches:
        shards = self._opened()
        rank, world_size, cuda = self._place()
        workers = self.settings.workers
        if workers is None:
            workers = _GPU_WORKERS if cuda else 0
        return TrainingBatches(
            shards, self.order, batch_sequences=self.batch_sequences, micro_batch_size=self.micro_batch_size,
            steps=self.steps, rank=rank, world_size=world_size, workers=workers,
            document_masking=self.settings.document_masking, pin_memory=cuda,
        )  # fmt: skip

    def val_dataloader(self) -> list[HeldOutLoader]:
        """A loader for each domain that has held-out text, and last one of copying probes, read at the end alone."""
        shards = self._opened()
        rank, world_size, _ = self._place()
        self._bytes = self.tokenizer.byte_lengths()
        domains = [name for name in self.order.domains if shards.tokens("validation")[name] > 1]
        makes = [(lambda domain=domain: self._held_out(domain)) for domain in domains]
        return [HeldOutLoader(make, rank, world_size) for make in (*makes, self._probes)]

    def validation_tokens(self, step: int) -> int:
        """How many tokens of each domain are read after `step`."""
        wished, earlier = self.settings.validation_tokens, self.validations - 1
        if step >= self.steps or earlier < 1:
            return wished
        affordable = _VALIDATION_COST * self.tokens / _FORWARD / earlier / len(self.order.domains)
        return min(wished, max(self.context, int(affordable)))

    def describe(self, step: int) -> str:
        """The ids of the documents that `step` (from 1) read."""
        sequences = range((step - 1) * self.batch_sequences, step * self.batch_sequences)
        return "documents " + ", ".join(document_ids(self._opened(), self.order, sequences, self.context))

    def _opened(self) -> TokenShards:
        if self.shards is None:
            raise ConfigError("PretrainingData is not set up yet.", "Give it to a Trainer, or call setup() first.")
        return self.shards

    @property
    def _held_out_batch(self) -> int:
        """Sequences in a batch of held-out text."""
        return max(self.micro_batch_size, _VALIDATION_BATCH // self.context)

    def _place(self) -> tuple[int, int, bool]:
        """Rank, number of processes, and whether they compute on GPUs."""
        if self.trainer is None:
            return 0, 1, False
        return *data_place(self.trainer), self.trainer.strategy.root_device.type == "cuda"

    def _held_out(self, domain: str) -> list[HeldOutBatch]:
        # `trainer.training` is False while a fit validates.
        fitting = self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING
        step = self.trainer.global_step if self.trainer is not None and fitting else self.steps
        batches = validation_batches(
            self._opened(), domain, self.context, self.validation_tokens(step), self._held_out_batch,
            document_masking=self.settings.document_masking,
        )  # fmt: skip
        return [
            HeldOutBatch(
                one, domain, int(self._bytes[one.targets.numpy()].sum()),
                kinds=token_kinds(one) if step >= self.steps else None,
            )
            for one in batches
        ]  # fmt: skip

    def _probes(self) -> list[HeldOutBatch]:
        if self.trainer is not None and self.trainer.global_step < self.steps:
            return []
        windows, batch = affordable_windows(self.tokens, self.context), self._held_out_batch
        probes = probes_of(self._opened(), self.order.domains, context=self.context, windows=windows, batch=batch)
        return [HeldOutBatch(probe.batch, probe.kind, marks=probe.marks) for probe in probes]


def affordable_windows(tokens: int, context: int) -> int:
    """How many windows of copying probes cost at most a hundredth of a run of `tokens`; at least one."""
    return max(1, min(MOST_WINDOWS, int(_COPYING_COST * tokens / _FORWARD / SEQUENCES_OF_A_WINDOW / context)))


def probes_of(shards: TokenShards, domains: Any, *, context: int, windows: int, batch: int) -> list[CopyingProbe]:
    """Probes from about `windows` validation windows, evenly from the domains that have text."""
    domains = [domain for domain in domains if shards.tokens("validation")[domain] > context]
    share = max(1, windows // max(1, len(domains)))
    rows = [
        held_out.tokens.numpy()
        for domain in domains
        for held_out in validation_batches(shards, domain, context, share * context, share)
    ]
    if not rows or shards.document_id is None:  # a probe begins as a document does
        return []
    return copying_probes(np.concatenate(rows), shards.document_id, batch)
