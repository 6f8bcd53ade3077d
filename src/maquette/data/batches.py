"""Batches of the order: the same sequences for any number of processes, workers and micro-batches, resumed exactly.

Step t reads the sequences t x batch ... (t + 1) x batch - 1 of the order. Process r of W takes the r-th of W equal
runs of them, a micro-batch at a time, so the mean over processes and micro-batches is the mean over the whole batch.
"""

import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from maquette.artifacts import ConfigError, StageError
from maquette.artifacts.files import digest
from maquette.data.mixture import MixtureOrder, SequencePlaces
from maquette.data.shards import TokenShards
from maquette.model.attention import PackedSequences, packed_sequences

_PLANNED = 64
"""Micro-batches whose places in the shards are computed together."""


class TensorBatch:
    """A dataclass of tensors, and of other such batches, that goes to a device as one."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return self._mapped(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, from which copies to a GPU run beside its work."""
        return self._mapped(lambda part: part.pin_memory())

    def _mapped(self, change: Callable[[Any], Any]) -> Self:
        batch: Any = self
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(batch)}
        movable = (torch.Tensor, TensorBatch, PackedSequences)
        changed = {name: change(part) for name, part in parts.items() if isinstance(part, movable)}
        return cast(Self, dataclasses.replace(batch, **changed))


@dataclasses.dataclass
class TokenRows(TensorBatch):
    """Rows of tokens (B, T + 1) of which each but the first is predicted from those before it."""

    tokens: torch.Tensor

    @property
    def inputs(self) -> torch.Tensor:
        """(B, T)"""
        return self.tokens[:, :-1]

    @property
    def targets(self) -> torch.Tensor:
        """(B, T)"""
        return self.tokens[:, 1:]


@dataclasses.dataclass
class TokenBatch(TokenRows):
    """B sequences of T + 1 tokens: the inputs are `tokens[:, :-1]`, the targets `tokens[:, 1:]`.

    tokens: (B, T + 1) int64
    domains: (B,) int64, index into the sorted names of the domains
    segments: (B, T) int64, the number of the document within its sequence; None where attention may cross documents
    first_sequence: the place in the order (of a validation batch, in its domain's windows) of the first sequence
    phase: the phase of the mixture, which has the rotary base
    packed: where the documents of `segments` begin and end
    """

    domains: torch.Tensor
    segments: torch.Tensor | None = None
    first_sequence: int = 0
    phase: int = 0
    packed: PackedSequences | None = None


class TrainingBatches(Dataset[TokenBatch]):
    """The micro-batches of `steps` optimiser steps for process `rank` of `world_size`, as an iterable with a length.

    `batch_sequences` counts one step's sequences of one context over all processes, `micro_batch_size` those of one
    forward pass of one process; where a phase has k times the context, k of them are read as one. `workers` processes
    read ahead; 0 reads when asked. An iterator begins where the state stands, and the state counts what was handed out,
    not what was read ahead; Lightning saves it with its fit loop. Raises `ConfigError` where the sizes do not divide.
    """

    def __init__(
        self,
        shards: TokenShards,
        order: MixtureOrder,
        *,
        batch_sequences: int,
        micro_batch_size: int,
        steps: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        document_masking: bool = False,
        pin_memory: bool = False,
    ) -> None:
        if batch_sequences % (micro_batch_size * world_size):
            raise ConfigError(
                f"A batch of {batch_sequences} sequences can't be shared by {world_size} processes "
                f"in micro-batches of {micro_batch_size}.",
                "Choose data.micro_batch_size and trainer.devices so that their product divides the batch.",
            )
        if document_masking and shards.document_id is None:
            raise ConfigError(
                "These tokens have no id that separates documents, so attention can't be kept within them.",
                "Give pretokenized.eos_token_id, or set data.document_masking=false.",
            )
        for phase in order.phases:
            if micro_batch_size % phase.context_multiple:
                raise ConfigError(
                    f"A phase of the mixture has {phase.context_multiple} times the context; "
                    f"micro-batches of {micro_batch_size} sequences can't be read so.",
                    f"Set data.micro_batch_size to a multiple of {phase.context_multiple}.",
                )
        self.shards, self.order = shards, order
        self.batch_sequences, self.steps = batch_sequences, steps
        self.micro_batches_per_step = batch_sequences // world_size // micro_batch_size
        self._micro_batch, self._first = micro_batch_size, rank * (batch_sequences // world_size)
        self._document_masking, self._workers, self._pin_memory = document_masking, workers, pin_memory
        self._position = 0
        self._planned: tuple[int, SequencePlaces] | None = None

    def __len__(self) -> int:
        return self.steps * self.micro_batches_per_step

    def __getitem__(self, index: int) -> TokenBatch:
        """Micro-batch `index` of this process, whatever was read before."""
        step, part = divmod(index, self.micro_batches_per_step)
        phase, multiple = self.order.step_phase(step * self.batch_sequences, (step + 1) * self.batch_sequences)
        first = index % _PLANNED * self._micro_batch
        chosen = slice(first, first + self._micro_batch, multiple)
        places = self._plan(index // _PLANNED)
        domains, starts = places.domains[chosen], places.start_tokens[chosen]
        names = [self.order.domains[domain] for domain in domains]
        rows = _read(self.shards, "train", names, starts, multiple * self.order.context + 1)
        segments = _segments(rows, self.shards.document_id) if self._document_masking else None
        return TokenBatch(
            rows,
            torch.from_numpy(domains.copy()),
            segments,
            first_sequence=step * self.batch_sequences + self._first + part * self._micro_batch,
            phase=phase,
            packed=None if segments is None else packed_sequences(segments),
        )

    def _plan(self, chunk: int) -> SequencePlaces:
        """The places of all sequences of `_PLANNED` micro-batches, one after another."""
        if self._planned is None or self._planned[0] != chunk:
            steps, parts = np.divmod(np.arange(chunk * _PLANNED, (chunk + 1) * _PLANNED), self.micro_batches_per_step)
            firsts = steps * self.batch_sequences + self._first + parts * self._micro_batch
            sequences = (firsts[:, None] + np.arange(self._micro_batch)).ravel()
            self._planned = (chunk, self.order.locate(sequences))
        return self._planned[1]

    def __iter__(self) -> Iterator[TokenBatch]:
        for batch in self._read_ahead() if self._workers else self._read():
            self._position += 1
            yield batch

    def _read(self) -> Iterator[TokenBatch]:
        for index in range(self._position, len(self)):
            yield self[index].pin_memory() if self._pin_memory else self[index]

    def _read_ahead(self) -> DataLoader[TokenBatch]:
        return DataLoader(
            self,
            batch_size=None,
            sampler=range(self._position, len(self)),
            num_workers=self._workers,
            prefetch_factor=4,
            pin_memory=self._pin_memory,
            worker_init_fn=_leave_interrupts_to_the_parent,
            # A generator of its own: making an iterator draws a seed, which must not move the model's random numbers.
            generator=torch.Generator(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Where we stand: the same for every process, and for any number of processes and workers."""
        step, micro_batches = divmod(self._position, self.micro_batches_per_step)
        return {
            "sequences": step * self.batch_sequences,
            "micro_batches": micro_batches,
            "micro_batches_per_step": self.micro_batches_per_step,
            "order": self._fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from a state. Raises `StageError` where it belongs to another order or batch."""
        if state["order"] != self._fingerprint:
            raise StageError(
                "The checkpoint was trained on other tokens, or in another order.",
                "Continue with the mixture, seed, context and corpus it began with, or start over with force=true.",
            )
        step, rest = divmod(state["sequences"], self.batch_sequences)
        if rest or (state["micro_batches"] and state["micro_batches_per_step"] != self.micro_batches_per_step):
            raise StageError(
                f"The checkpoint stands at sequence {state['sequences']:,}, where no batch of "
                f"{self.batch_sequences} sequences begins.",
                "Continue with the batch, micro-batch and number of processes it began with.",
            )
        self._position = step * self.micro_batches_per_step + state["micro_batches"]

    @functools.cached_property
    def _fingerprint(self) -> str:
        return digest([self.order.fingerprint, self.shards.digest])


def document_ids(shards: TokenShards, order: MixtureOrder, sequences: Sequence[int], length: int) -> list[str]:
    """The ids of the documents that `length` inputs from the beginning of each of `sequences` are from, in order."""
    places = order.locate(sequences)
    result: dict[str, None] = {}
    for domain, start in zip(places.domains, places.start_tokens, strict=True):
        result |= dict.fromkeys(shards.document_ids(order.domains[int(domain)], "train", int(start), length + 1))
    return list(result)


def validation_batches(
    shards: TokenShards,
    domain: str,
    context: int,
    tokens: int,
    batch: int,
    *,
    split: str = "validation",
    document_masking: bool = False,
) -> list[TokenBatch]:
    """About `tokens` held-out tokens of a domain, the same at every call, in batches of `batch` sequences.

    Windows of `context` tokens that do not overlap, spread evenly over the split. A split shorter than one window
    gives one shorter sequence; one without text gives no batch.
    """
    available = max(0, shards.tokens(split)[domain] - 1)
    length = min(context, available)
    if not length:
        return []
    windows = available // length
    count = min(windows, max(1, tokens // context))
    starts = np.arange(count) * windows // count * length
    place = shards.domains.index(domain)
    batches = []
    for first in range(0, count, batch):
        chosen = starts[first : first + batch]
        rows = _read(shards, split, [domain] * len(chosen), chosen, length + 1)
        segments = _segments(rows, shards.document_id) if document_masking else None
        packed = None if segments is None else packed_sequences(segments)
        domains = torch.full((len(chosen),), place)
        batches.append(TokenBatch(rows, domains, segments, first_sequence=first, packed=packed))
    return batches


def _read(shards: TokenShards, split: str, domains: list[str], starts: NDArray[np.int64], length: int) -> torch.Tensor:
    """Rows `(B, length)` of the tokens from each start on."""
    rows = torch.empty((len(starts), length), dtype=torch.int64)
    for row, domain, start in zip(rows.numpy(), domains, starts.tolist(), strict=True):
        row[:] = shards.stream(domain, split).read(start, length)
    return rows


def _segments(rows: torch.Tensor, document_id: int | None) -> torch.Tensor:
    """Numbers the documents within each sequence: (B, T + 1) -> (B, T), one more at each document token."""
    assert document_id is not None  # `TrainingBatches` has refused it
    return torch.cumsum(rows[:, :-1] == document_id, dim=1)


def _leave_interrupts_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
