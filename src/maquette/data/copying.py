"""Held-out sequences that show whether a model copies from its context.

A transformer that has learnt to look up what followed the same tokens earlier in its context (induction heads, Olsson
et al. 2022) predicts a run of tokens much better the second time. Two kinds of sequence are made for that, and one is
found. `text`: a half of a held-out window stands twice, `A A`; beside it `B A`, where `B` is the window's other half,
so the same tokens are judged at the same places with as much of the same document before them, and all that differs is
that they have been there. `random`: the same of shuffled tokens, which nothing but copying predicts. `natural`: runs
that held-out text repeats of itself within a window.

And of plain held-out text, what one who copies would make of each token (`token_kinds`): what a model gains when it
begins to copy, it gains on hits.
"""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from maquette.data.batches import TokenBatch

KINDS = ("text", "random", "natural")

SEQUENCES_OF_A_WINDOW = 5
"""text and random twice each, natural once: what one window costs."""

RUN_LENGTH = 4
"""Tokens of a natural repetition; and so many tokens of one made on purpose go by before it counts, for a model has to
see some of it to know where it is."""

FIRST, SECOND = 1, 2

TOKEN_KINDS = ("new", "hit", "miss")
"""Of a token by the two before it: they stand there for the first time; or they stood there before, and what followed
them the last time is this token, or another."""

Integers = NDArray[np.int64]
Marks = NDArray[np.int8]


@dataclasses.dataclass(frozen=True)
class CopyingProbe:
    """Sequences of one kind: `batch` of (B, T + 1) tokens; `marks` (B, T) is `FIRST` or `SECOND` where the predicted
    token belongs to the first or the second occurrence of a run, 0 elsewhere."""

    kind: str
    batch: TokenBatch
    marks: torch.Tensor


def copying_probes(windows: Integers, document_id: int, batch: int, seed: int = 0) -> list[CopyingProbe]:
    """Probes from held-out `windows` (n, T + 1), in batches of at most `batch` sequences; the same for the same seed.

    Windows too short to hold a run twice (under ten tokens) give none.
    """
    if len(windows) == 0 or windows.shape[1] < 2 * (RUN_LENGTH + 1):
        return []
    shuffled = np.random.default_rng(seed).permutation(windows.ravel()).reshape(windows.shape)
    made = {
        "text": repeated_halves(windows, document_id),
        "random": repeated_halves(shuffled, document_id),
        "natural": (windows, natural_repeats(windows, RUN_LENGTH)),
    }
    return [
        CopyingProbe(kind, TokenBatch(rows, torch.zeros(len(rows), dtype=torch.int64)), marked)
        for kind, (tokens, marks) in made.items()
        for rows, marked in zip(torch.tensor(tokens).split(batch), torch.tensor(marks).split(batch), strict=True)
    ]


def repeated_halves(windows: Integers, document_id: int) -> tuple[Integers, Marks]:
    """Of each window two sequences, `document B A` and `document A A` with A and B its halves of L tokens.

    (n, T + 1) -> tokens (2n, 2L + 1) and marks (2n, 2L): the last A is the first occurrence in the one, the second in
    the other.
    """
    half = (windows.shape[1] - 1) // 2
    start = np.full((len(windows), 1), document_id, dtype=np.int64)
    first, other = windows[:, :half], windows[:, half : 2 * half]
    tokens = np.concatenate([np.hstack([start, other, first]), np.hstack([start, first, first])])
    marks = np.zeros((2 * len(windows), 2 * half), np.int8)
    marks[: len(windows), half + RUN_LENGTH :] = FIRST
    marks[len(windows) :, half + RUN_LENGTH :] = SECOND
    return tokens, marks


def natural_repeats(windows: Integers, length: int) -> Marks:
    """Marks (n, T) of the last token of every run of `length` tokens that a window has twice: `FIRST` where the run
    stands for the first time, `SECOND` for the second; later occurrences are not marked, so both have as many."""
    marks = np.zeros((len(windows), windows.shape[1] - 1), np.int8)
    for row, tokens in zip(marks, windows, strict=True):
        runs = np.lib.stride_tricks.sliding_window_view(tokens, length)
        seen: dict[bytes, list[int]] = {}
        for start, run in enumerate(runs):
            seen.setdefault(run.tobytes(), []).append(start + length - 2)  # target k predicts token k + 1
        for places in seen.values():
            if len(places) > 1:
                row[places[0]], row[places[1]] = FIRST, SECOND
    return marks


def token_kinds(batch: TokenBatch) -> torch.Tensor:
    """The place in `TOKEN_KINDS` of every predicted token, (B, T) int8. What stands in another document of the same
    sequence counts only where attention reaches it (`segments`)."""
    tokens = batch.tokens.numpy()
    kinds = np.zeros(batch.inputs.shape, np.int8)
    segments = np.zeros(kinds.shape, np.int64) if batch.segments is None else batch.segments.numpy()
    rows = np.broadcast_to(np.arange(len(kinds))[:, None], kinds.shape)
    pairs = segments[:, 1:] == segments[:, :-1]
    before, last, target = (part[pairs] for part in (tokens[:, :-2], tokens[:, 1:-1], tokens[:, 2:]))
    keys = (last, before, segments[:, 1:][pairs], rows[:, 1:][pairs])
    order = np.lexsort(keys)  # stable: equal pairs stay in the order of the text
    again = np.all([key[order[1:]] == key[order[:-1]] for key in keys], axis=0)
    same = target[order[1:]] == target[order[:-1]]
    codes = np.full(len(order), TOKEN_KINDS.index("new"), np.int8)
    codes[order[1:]] = np.where(again, np.where(same, TOKEN_KINDS.index("hit"), TOKEN_KINDS.index("miss")), 0)
    kinds[:, 1:][pairs] = codes
    return torch.from_numpy(kinds)
