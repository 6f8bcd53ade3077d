"""Interpolated modified Kneser-Ney n-gram models over token ids, in numpy: what a small language model must beat.

Chen & Goodman 1998, "An Empirical Study of Smoothing Techniques for Language Modeling", section 3: for an n-gram of
context c and token w

    p(w | c) = (a(c w) - D(a(c w))) / sum_v a(c v)  +  gamma(c) p(w | c without its first token)

with a the count for the longest n-grams, and for shorter ones the number of different tokens seen before them; D one of
three discounts D1, D2, D3+ by a = 1, 2, >= 3, estimated for each length from how many n-grams have a = 1, 2, 3, 4
(their equation 26); and gamma(c) the share that the discounts took. The shortest is interpolated with 1 / vocabulary.

An n-gram is known by its row in the sorted table of its length, and its key there is (row of its first n - 1 tokens,
last token). So each length costs one sort, any vocabulary fits 64 bits, and looking up is one binary search a length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_MISSING = -1


@dataclass(frozen=True)
class _Table:
    """The n-grams of one length n, sorted. Rows of the contexts are those of the table of length n - 1."""

    keys: Integers  # (rows,) context row * vocabulary + last token
    discounted: Floats  # (rows,) (a - D(a)) / sum of a over its context
    left_over: Floats  # (context rows,) gamma: what the discounts took; 1 where the context was never followed

    def find(self, contexts: Integers, tokens: Integers, vocab_size: int) -> Integers:
        """Row of each n-gram, `_MISSING` where it (or its context) was never seen."""
        sought = contexts * vocab_size + tokens
        rows = np.searchsorted(self.keys, sought)
        rows[rows == len(self.keys)] = 0
        return np.where((contexts != _MISSING) & (self.keys[rows] == sought), rows, _MISSING)


@dataclass(frozen=True)
class KneserNey:
    """An n-gram model of tokens. Make it with `fit`."""

    vocab_size: int
    tables: tuple[_Table, ...]

    @classmethod
    def fit(cls, sequences: "Tokens", vocab_size: int, *, order: int = 5) -> "KneserNey":
        """Counts the n-grams, up to `order` tokens, within each of `sequences` (no n-gram crosses their borders, so
        none is longer than the longest sequence).

        As in training a language model, the first token of a sequence is only context. A bigram at the beginning of a
        sequence, where what came before is not known, counts as seen after one token.
        Memory is about 100 bytes a token; 4 million tokens take some seconds.
        """
        tokens, places = _joined(sequences)
        if tokens.min() < 0 or tokens.max() >= vocab_size:
            raise ValueError(f"token ids are in [{tokens.min()}, {tokens.max()}], not in [0, {vocab_size})")
        rows = np.zeros(len(tokens), np.int64)  # of the n-gram that ends at each token; the empty one has row 0
        keys, counts, suffixes = [], [], []
        for length in range(1, order + 1):
            whole = np.flatnonzero(places >= length - 1)
            if not len(whole):
                break
            contexts = rows[whole - 1] if length > 1 else rows[whole]
            unique, first, inverse = np.unique(
                contexts * vocab_size + tokens[whole], return_index=True, return_inverse=True
            )
            is_target = places[whole] >= 1
            keys.append(unique)
            counts.append(np.bincount(inverse, weights=is_target, minlength=len(unique)).astype(np.int64))
            suffixes.append(rows[whole[first]])  # row of the n-gram without its first token
            rows = np.full(len(tokens), _MISSING, np.int64)
            rows[whole] = inverse
        tables = []
        for index, seen in enumerate(counts):
            if index + 1 < len(counts):
                before = np.bincount(suffixes[index + 1][counts[index + 1] > 0], minlength=len(seen))
                seen = np.where(seen > 0, np.maximum(before, 1), 0)
            num_contexts = len(keys[index - 1]) if index else 1
            tables.append(_table(keys[index], seen, keys[index] // vocab_size, num_contexts))
        return cls(vocab_size, tuple(tables))

    def log_probabilities(self, sequences: "Tokens") -> Floats:
        """Natural log-probability of every token but the first of each sequence, given those before it there
        (at most order - 1). Those of the sequences follow one another: `(B, T)` tokens give `(B * (T - 1),)`."""
        tokens, places = _joined(sequences)
        rows = np.zeros(len(tokens), np.int64)
        probabilities = np.full(len(tokens), 1.0 / self.vocab_size)
        for length, table in enumerate(self.tables, start=1):
            contexts = np.full(len(tokens), _MISSING, np.int64)
            whole = np.flatnonzero(places >= length - 1)
            contexts[whole] = rows[whole - 1] if length > 1 else 0
            rows = table.find(contexts, tokens, self.vocab_size)
            probabilities = _interpolated(table, contexts, rows, probabilities)
        return np.log(probabilities[places >= 1])


Tokens = npt.NDArray[np.integer] | Sequence[npt.NDArray[np.integer]]
"""Sequences of token ids: an array `(B, T)`, or arrays `(B, T)` or `(T,)` of different lengths."""


def _joined(sequences: Tokens) -> tuple[Integers, Integers]:
    """All tokens one after another, and the place of each in its sequence."""
    blocks = [np.atleast_2d(block) for block in ([sequences] if isinstance(sequences, np.ndarray) else sequences)]
    if not sum(block.size for block in blocks):
        raise ValueError("there are no tokens")
    tokens = np.concatenate([block.reshape(-1) for block in blocks]).astype(np.int64)
    places = np.concatenate([np.tile(np.arange(block.shape[1]), block.shape[0]) for block in blocks])
    return tokens, places


def _table(keys: Integers, counts: Integers, contexts: Integers, num_contexts: int) -> _Table:
    discounts = np.concatenate([[0.0], estimate_discounts(counts)])[np.minimum(counts, 3)]
    totals = np.bincount(contexts, weights=counts, minlength=num_contexts)
    taken = np.bincount(contexts, weights=discounts, minlength=num_contexts)
    followed = totals > 0
    left_over = np.divide(taken, totals, out=np.ones(num_contexts), where=followed)
    discounted = np.divide(counts - discounts, totals[contexts], out=np.zeros(len(keys)), where=followed[contexts])
    return _Table(keys, discounted, left_over)


def _interpolated(table: _Table, contexts: Integers, rows: Integers, shorter: Floats) -> Floats:
    """p(w | c) from the shorter context's; where the context was never seen the shorter one's stands."""
    known = contexts != _MISSING
    own = np.where(rows != _MISSING, table.discounted[rows], 0.0)
    return np.where(known, own + table.left_over[np.where(known, contexts, 0)] * shorter, shorter)


def estimate_discounts(counts: Integers) -> Floats:
    """D1, D2 and D3+ from how many n-grams have (adjusted) counts 1, 2, 3 and 4 (Chen & Goodman 1998, equation 26).

    Where there are too few to estimate one (it would fall outside of [0, count]), it is three quarters of a count.
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    estimates = np.full(3, 0.75)
    if n[1] > 0 and n[2] > 0:
        share = n[1] / (n[1] + 2 * n[2])
        for k in (1, 2, 3):
            discount = k - (k + 1) * share * n[k + 1] / n[k] if n[k] > 0 else -1.0
            if 0.0 <= discount <= k:
                estimates[k - 1] = discount
    return estimates
