"""Batches of examples: which ones a step reads is a pure function of (data, seed, step), and how they are laid out in
rows changes no loss.

Step t reads the examples t x batch ... (t + 1) x batch - 1 of an order that goes through all of them again and again,
each time shuffled again. They are split into micro-batches (of all processes together), and every micro-batch carries
the number by which sums over its tokens are divided, so that the mean over micro-batches is the mean over the step's
tokens, not a mean of means.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maquette.artifacts import StageError
from maquette.data.batches import TensorBatch, TokenRows
from maquette.data.examples import Examples
from maquette.data.order import Reshuffled
from maquette.model.attention import PackedSequences, packed_sequences

Batch = TypeVar("Batch")


@dataclasses.dataclass
class ConversationBatch(TokenRows):
    """R rows of T tokens, padded on the right; a row holds one example or, packed, several.

    tokens: (R, T) int64
    loss_mask: (R, T) bool, true for the tokens that count
    lengths: (R,) int64, tokens of each row
    segments, positions: (R, T) int64 of packed rows, else None: which example a token belongs to, where it stands in it
    divisor: what sums over the tokens that count are divided by
    packed: where the examples of `segments` begin and end among the inputs
    """

    loss_mask: Tensor
    lengths: Tensor
    segments: Tensor | None = None
    positions: Tensor | None = None
    divisor: float = 1.0
    packed: PackedSequences | None = None

    @property
    def mask(self) -> Tensor:
        """(R, T - 1) bool, aligned to the targets"""
        return self.loss_mask[:, 1:]


@dataclasses.dataclass
class PreferenceBatch(TensorBatch):
    """B pairs of completions of one prompt each; both halves `(B, T)`, never packed.

    reference_chosen, reference_rejected: (B,) log-probabilities under the reference; None for reward models
    margin, probability: (B,), NaN where a pair has none
    pairs: (B,) their numbers
    """

    chosen: ConversationBatch
    rejected: ConversationBatch
    margin: Tensor
    probability: Tensor
    pairs: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None

    def rows(self) -> ConversationBatch:
        """Both halves as one batch of 2 B rows, the chosen completions first: one forward pass for both."""
        halves = self.chosen, self.rejected
        tokens, mask, lengths = (
            torch.cat([getattr(half, name) for half in halves]) for name in ("tokens", "loss_mask", "lengths")
        )
        return ConversationBatch(tokens, mask, lengths, divisor=self.chosen.divisor)


@dataclasses.dataclass
class LabelledBatch(TensorBatch):
    """B completions, each good or bad by itself; never packed.

    desirable: (B,) bool
    reference: (B,) log-probabilities under the reference
    mismatched, mismatched_reference: the first micro-batch of a step has completions of other prompts, as many as the
        step has of this process's, and their log-probabilities under the reference `(n,)`
    """

    rows: ConversationBatch
    desirable: Tensor
    reference: Tensor
    mismatched: ConversationBatch | None = None
    mismatched_reference: Tensor | None = None


class ExampleBatches(Generic[Batch]):
    """The micro-batches of one process, as an iterable with a length that resumes exactly.

    `make(indices, parts, mine)` turns the examples of a step into `parts` micro-batches, those of all processes in
    turn, and gives the `mine` of them: process `rank` of `world_size` takes `micro_batches` neighbours. `identity`:
    digest of the data and of what else the order depends on. `pin_memory`: batches in page-locked memory, for a GPU.
    """

    def __init__(
        self,
        order: Reshuffled,
        make: Callable[[NDArray[np.int64], int, slice], Sequence[Batch]],
        *,
        batch_size: int,
        micro_batches: int,
        steps: int,
        identity: str,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._pin_memory = pin_memory
        self._order, self._make, self._batch_size, self._steps = order, make, batch_size, steps
        self._micro_batches, self._rank, self._world_size, self._identity = micro_batches, rank, world_size, identity
        self._position = 0

    def __len__(self) -> int:
        return self._steps * self._micro_batches

    def __iter__(self) -> Iterator[Batch]:
        made: tuple[int, Sequence[Batch]] | None = None
        first, parts = self._rank * self._micro_batches, self._world_size * self._micro_batches
        while self._position < len(self):
            step, part = divmod(self._position, self._micro_batches)
            if made is None or made[0] != step:
                made = step, self._make(self.indices(step), parts, slice(first, first + self._micro_batches))
            self._position += 1  # before it is used: a checkpoint after its step counts it as read (Lightning asks)
            batch: Any = made[1][part]
            yield batch.pin_memory() if self._pin_memory else batch

    def indices(self, step: int) -> NDArray[np.int64]:
        """The examples that step `step` (from 0) reads, of all processes: (batch_size,)."""
        return self._order.locate(np.arange(step * self._batch_size, (step + 1) * self._batch_size))

    def state_dict(self) -> dict[str, Any]:
        step, part = divmod(self._position, self._micro_batches)
        return {"step": step, "part": part, "micro_batches": self._micro_batches, "identity": self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from a state. Raises `StageError` where it belongs to other data."""
        if state["identity"] != self._identity or (state["part"] and state["micro_batches"] != self._micro_batches):
            raise StageError(
                "The checkpoint was trained on other examples, or in another order.",
                "Continue with the data, seed and batch it began with, or start over with force=true.",
            )
        self._position = state["step"] * self._micro_batches + state["part"]


def conversation_batches(
    examples: Examples,
    indices: Sequence[int] | NDArray[np.int64],
    parts: int,
    mine: slice = slice(None),
    *,
    packed: bool = True,
) -> list[ConversationBatch]:
    """The examples as `parts` micro-batches, of which those of `mine` are made. Their sums, divided by their `divisor`
    and averaged over the parts, are the mean over all tokens that count. Packed rows are as long as the longest example
    of their part."""
    shares = np.array_split(np.asarray(indices), parts)
    divisor = max(int(examples.answer_lengths[np.concatenate(shares)].sum()), 1) / parts
    return [_rows(examples, share.tolist(), packed, divisor) for share in shares[mine]]


def preference_batches(
    examples: Examples,
    pairs: Sequence[int] | NDArray[np.int64],
    parts: int,
    reference: Tensor | None = None,
    mine: slice = slice(None),
) -> list[PreferenceBatch]:
    """The pairs as `parts` micro-batches, of which those of `mine` are made. `reference (2 n,)`: log-probabilities of
    all examples. `divisor`s are those of the chosen completions' tokens, for a term of fine-tuning on them. Both halves
    are as wide as the longest row."""
    shares = np.array_split(np.asarray(pairs, dtype=np.int64), parts)
    divisor = max(int(examples.answer_lengths[2 * np.concatenate(shares)].sum()), 1) / parts
    batches = []
    for share in shares[mine]:
        halves = [(2 * share).tolist(), (2 * share + 1).tolist()]
        width = max(len(examples[row][0]) for half in halves for row in half)
        chosen, rejected = (_rows(examples, half, False, divisor, width) for half in halves)
        margin, probability = (
            torch.from_numpy(np.array(examples.columns[name][2 * share])).float() for name in ("margin", "probability")
        )
        batches.append(PreferenceBatch(chosen, rejected, margin, probability, torch.from_numpy(share)))
        if reference is not None:
            batches[-1].reference_chosen = reference[torch.from_numpy(2 * share)]
            batches[-1].reference_rejected = reference[torch.from_numpy(2 * share + 1)]
    return batches


def labelled_batches(
    examples: Examples,
    mismatched: Examples,
    references: tuple[Tensor, Tensor],
    indices: Sequence[int] | NDArray[np.int64],
    parts: int,
    mine: slice = slice(None),
) -> list[LabelledBatch]:
    """The examples, which have a column `desirable`, as `parts` micro-batches, of which those of `mine` are made.
    `mismatched`: of the same number; `references (n,)`: log-probabilities of both."""
    shares = np.array_split(np.asarray(indices, dtype=np.int64), parts)[mine]
    desirable = np.asarray(examples.columns["desirable"], dtype=bool)
    batches = [
        LabelledBatch(
            _rows(examples, share.tolist(), False, 1.0), torch.from_numpy(desirable[share]),
            references[0][torch.from_numpy(share)],
        )
        for share in shares
    ]  # fmt: skip
    whole = np.concatenate(shares)
    batches[0].mismatched = _rows(mismatched, whole.tolist(), False, 1.0)
    batches[0].mismatched_reference = references[1][torch.from_numpy(whole)]
    return batches


def mismatched_examples(examples: Examples, longest: int) -> Examples:
    """The prompt of each example, and the completion of the next one that has another prompt, `longest` tokens at most.
    Where all have the same prompt, the first example's."""
    starts = np.asarray(examples.columns["prompt_length"], dtype=np.int64)
    prompts = [examples[number][0][:start].tobytes() for number, start in enumerate(starts)]
    others, following = [0] * len(prompts), 0
    for number in reversed(range(2 * len(prompts))):  # twice around
        place = number % len(prompts)
        after = (place + 1) % len(prompts)
        following = after if prompts[after] != prompts[place] else following
        others[place] = following
    tokens, masks, lengths = [], [], []
    for number, other in enumerate(others):
        start, (ids, counts) = int(starts[other]), examples[other]
        prompt = examples[number][0][: starts[number]]
        room = longest - len(prompt)
        tokens += [prompt, ids[start : start + room]]
        masks += [np.zeros(len(prompt), dtype=bool), counts[start : start + room]]
        lengths.append(len(prompt) + len(tokens[-1]))
    return Examples(
        np.concatenate([np.zeros(0, dtype=np.int32), *tokens]), np.concatenate([np.zeros(0, dtype=bool), *masks]),
        np.cumsum([0, *lengths]),
    )  # fmt: skip


def _rows(
    examples: Examples, indices: Sequence[int], packed: bool, divisor: float, width: int | None = None
) -> ConversationBatch:
    """`width`: of the rows, by default the longest example's."""
    lengths = [len(examples[index][0]) for index in indices]
    width = width or max(lengths)
    rows = best_fit(lengths, width) if packed else [[place] for place in range(len(indices))]
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    segments, positions = torch.full((len(rows), width), -1), torch.zeros(len(rows), width, dtype=torch.int64)
    filled = torch.zeros(len(rows), dtype=torch.int64)
    for row, places in enumerate(rows):
        start = 0
        for segment, place in enumerate(places):
            ids, counts = examples[indices[place]]
            part = slice(start, start + len(ids))
            tokens[row, part], mask[row, part] = torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(counts.copy())
            segments[row, part], positions[row, part] = segment, torch.arange(len(ids))
            start += len(ids)
        filled[row] = start
    if all(len(places) == 1 for places in rows):  # plain causal attention is faster, and padding comes last
        return ConversationBatch(tokens, mask, filled, divisor=divisor)
    # The first token of an example is predicted by the last of another one, so it never counts.
    packed_rows = packed_sequences(segments[:, :-1])
    return ConversationBatch(tokens, mask & (positions > 0), filled, segments, positions, divisor, packed_rows)


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of examples, by their indices, none longer than `capacity` together (and at least one example each).

    Best fit, longest first: each example goes where it leaves the least room (Ding et al. 2024, "Fewer truncations
    improve language modeling", section 3). Rows and the examples in them are in the order in which they were begun.
    Raises `ValueError` for an example that is longer than a row.
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"An example of {max(lengths)} tokens does not fit a row of {capacity}.")
    rows: list[list[int]] = []
    space: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        fitting = [row for row in range(len(rows)) if space[row] >= lengths[index]]
        if fitting:
            row = min(fitting, key=space.__getitem__)
            rows[row].append(index)
            space[row] -= lengths[index]
        else:
            rows.append([index])
            space.append(capacity - lengths[index])
    return rows
