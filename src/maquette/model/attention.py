"""Attention: which tokens each one attends to, and the kernel that computes it.

Three ways, and `what_is_seen` chooses:

- plain causal attention needs no mask: PyTorch's kernels skip what lies ahead;
- sequences laid end to end with their cumulative lengths (`PackedSequences`), where documents are packed, attention has
  a window, or prompts differ in length: `torch.nn.attention.varlen` on CUDA, in half precision, which is what
  FlashAttention computes in; on a CPU `attend_apart`, its reference in plain torch, for long sequences, where it does a
  fraction of the work;
- a dense mask everywhere else: short sequences on a CPU, dropout, float32 on a GPU.

On CUDA one kernel takes grouped queries together with a mask, or in float32: the one that writes all scores to memory.
Heads that share keys and values get copies of them there.
"""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.model.cache import KeyValueCache

WIDEST_VARLEN_HEAD = 256
"""FlashAttention's limit."""

LONG_ON_CPU = 1024
"""From so many tokens a row on, packed documents on a CPU are attended to one by one: there it is 1.5 to 7 times as
fast as a dense mask (`python benchmarks/packed_attention.py`)."""

_BOUNDS = 4
"""`max_q` and `max_k` are rounded up to the row's length over 1, 2 or 4: a compiled layer is compiled again for each
value, and FlashAttention only starts some blocks in vain."""


class PackedSequences(NamedTuple):
    """Sequences laid end to end: queries of the n-th are `cu_seq_q[n] : cu_seq_q[n + 1]`, keys and values alike, and
    its last query meets its last key. `max_q`, `max_k`: at least as many as the longest has."""

    cu_seq_q: Tensor  # (N + 1,) int32
    cu_seq_k: Tensor  # (N + 1,) int32
    max_q: int
    max_k: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PackedSequences":
        """On another device."""
        queries, keys = (part.to(device, non_blocking=non_blocking) for part in self[:2])
        return self._replace(cu_seq_q=queries, cu_seq_k=keys)

    def pin_memory(self) -> "PackedSequences":
        """In page-locked memory."""
        return self._replace(cu_seq_q=self.cu_seq_q.pin_memory(), cu_seq_k=self.cu_seq_k.pin_memory())


Seen = Tensor | PackedSequences | None
"""Which columns each token attends to: a bool mask, sequences laid end to end, or None for all that are not ahead."""


def packed_sequences(segments: Tensor) -> PackedSequences:
    """Of rows of documents `segments (B, T)`, each of which lies in one piece. On a GPU this waits for the device, so
    it is made where the batch is."""
    begins = F.pad(segments[:, 1:] != segments[:, :-1], (1, 0), value=True).flatten()
    ends = begins.nonzero()[:, 0].int()
    bounds = F.pad(ends, (0, 1), value=segments.numel())
    longest, length = int(bounds.diff().max()), segments.size(1)
    longest = min(bound for part in range(_BOUNDS) if (bound := -(-length // 2**part)) >= longest)
    return PackedSequences(bounds, bounds, longest, longest)


def _rows(batch: int, length: int, device: torch.device) -> PackedSequences:
    """Of whole rows, without waiting for the device."""
    bounds = torch.arange(0, batch * length + 1, length, dtype=torch.int32, device=device)
    return PackedSequences(bounds, bounds, length, length)


def _padded_rows(starts: Tensor, used: int, length: int) -> PackedSequences:
    """Of `length` new columns after `used` of a cache whose rows begin at `starts (B,)`: of each row its padding, which
    only new columns that are padding attend to, and its text."""
    total = used + length
    starts = starts.clamp(max=total)
    rows = torch.arange(len(starts), device=starts.device)
    queries = torch.stack([rows * length, rows * length + (starts - used).clamp(min=0)], dim=1).flatten()
    keys = torch.stack([rows * total, rows * total + starts], dim=1).flatten()
    cu_seq_q, cu_seq_k = (
        F.pad(begins, (0, 1), value=len(starts) * width).int() for begins, width in ((queries, length), (keys, total))
    )
    return PackedSequences(cu_seq_q, cu_seq_k, length, total)


def attention_dtype(values: Tensor) -> torch.dtype:
    """What attention is computed in: autocast's precision where that is on."""
    device = values.device.type
    autocast = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else values.dtype


def takes_packed_sequences(values: Tensor, length: int, head_dim: int, dropout: float, *, cached: bool) -> bool:
    """Whether sequences laid end to end are attended to as such, rather than through a dense mask, by what the hidden
    states `values` are. `dropout`: of attention, 0 outside training."""
    if dropout:
        return False
    if values.device.type == "cpu":
        return length >= LONG_ON_CPU and not cached
    half = attention_dtype(values) in (torch.float16, torch.bfloat16)
    return values.is_cuda and half and head_dim <= WIDEST_VARLEN_HEAD


def what_is_seen(
    batch: int,
    length: int,
    device: torch.device,
    *,
    window: int | None = None,
    segments: Tensor | None = None,
    packed: PackedSequences | None = None,
    cache: KeyValueCache | None = None,
    apart: bool = False,
) -> Seen:
    """What each of `length` new tokens of `batch` rows attends to, in a layer that looks back `window` tokens, its own
    included.

    `segments (B, T)`: its own document; `packed`: of these; `cache`: what the tokens follow. `apart`: give sequences
    laid end to end, where `takes_packed_sequences` says so.
    """
    used = 0 if cache is None else cache.used
    starts = None if cache is None else cache.starts
    if window is not None and window >= used + length:
        window = None
    if window is not None and cache is not None:
        if length == 1:
            return cache.seen_in_ring()
        earlier = min(used, window - 1)  # columns before the new ones that the cache gives
        starts = None if starts is None else (starts - (used - earlier)).clamp(min=0)
        used = earlier
    if segments is None and starts is None and window is None and (used == 0 or length == 1):
        return None
    if apart and length > 1:
        if packed is not None:
            return packed
        if starts is not None:
            return _padded_rows(starts, used, length)
        if used == 0:
            return _rows(batch, length, device)
    return dense_mask(length, device, window=window, segments=segments, used=used, starts=starts)


def dense_mask(
    length: int,
    device: torch.device,
    *,
    window: int | None = None,
    segments: Tensor | None = None,
    used: int = 0,
    starts: Tensor | None = None,
) -> Tensor:
    """Bool, `(B, 1, T, S)`, or `(T, S)` where all rows are alike: the T columns after `used` against all S."""
    queries = torch.arange(used, used + length, device=device)[:, None]
    keys = torch.arange(used + length, device=device)
    allowed = keys <= queries
    if window is not None:
        allowed = allowed & (keys > queries - window)
    if segments is not None:
        return (segments[:, None, :, None] == segments[:, None, None, :]) & allowed
    if starts is None:
        return allowed
    # Padding attends to itself: a row of scores that is all minus infinity would give NaN.
    return (allowed & (keys >= starts[:, None, None, None])) | (keys == queries)


def attend(
    query: Tensor, key: Tensor, value: Tensor, seen: Seen, *, window: int | None = None, dropout: float = 0.0
) -> Tensor:
    """Queries `(B, H, T, W)` against keys and values `(B, K, S, W)` -> `(B, H, T, W)`. `window`: as in
    `what_is_seen`."""
    grouped = query.size(1) != key.size(1)
    if isinstance(seen, PackedSequences):
        kernel = _varlen if query.is_cuda else attend_apart
        queries, keys, values = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
        return kernel(queries, keys, values, seen, window).unflatten(0, (query.size(0), -1)).transpose(1, 2)
    if grouped and query.device.type != "cpu" and (seen is not None or attention_dtype(query) == torch.float32):
        key, value = (part.repeat_interleave(query.size(1) // part.size(1), dim=1) for part in (key, value))
        grouped = False
    return F.scaled_dot_product_attention(
        query, key, value,
        attn_mask=seen, is_causal=seen is None and query.size(2) > 1, dropout_p=dropout, enable_gqa=grouped,
    )  # fmt: skip


def _varlen(query: Tensor, key: Tensor, value: Tensor, seen: PackedSequences, window: int | None) -> Tensor:
    """FlashAttention: queries `(all T, H, W)`, keys and values `(all S, K, W)`."""
    from torch.nn.attention.varlen import varlen_attn  # which imports the compiler

    precision = attention_dtype(query)
    query, key, value = (part.to(precision) for part in (query, key, value))
    back = -1 if window is None else window - 1  # keys behind a query's own, both ends included
    given = varlen_attn(query, key, value, *seen, window_size=(back, 0), enable_gqa=True)
    assert isinstance(given, Tensor)  # it gives more where it is asked for more
    return given


@torch.compiler.disable
def attend_apart(query: Tensor, key: Tensor, value: Tensor, seen: PackedSequences, window: int | None) -> Tensor:
    """What `_varlen` computes, one sequence after another in plain torch; a window in pieces as long as it is."""
    grouped = query.size(1) != key.size(1)
    query, key, value = (part.transpose(0, 1)[None] for part in (query, key, value))  # (1, heads, all, W)
    bounds = zip(
        _bounds(seen.cu_seq_q, seen.max_q, query.size(2)), _bounds(seen.cu_seq_k, seen.max_k, key.size(2)), strict=True
    )
    parts = []
    for (first, first_key), (end, end_key) in itertools.pairwise(bounds):
        if end == first:
            continue
        ahead = end_key - end  # from a query's column to its own key's
        step = end - first if window is None else window
        for start in range(first, end, step):
            stop = min(start + step, end)
            begin = first_key if window is None else max(first_key, start + ahead - window + 1)
            keys, queries = slice(begin, stop + ahead), slice(start, stop)
            length, total = stop - start, stop + ahead - begin
            mask = None
            if total > length > 1:
                mask = dense_mask(length, query.device, window=window, used=total - length)
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, :, queries], key[:, :, keys], value[:, :, keys],
                    attn_mask=mask, is_causal=mask is None and length > 1, enable_gqa=grouped,
                )
            )  # fmt: skip
    return torch.cat(parts, dim=2)[0].transpose(0, 1)


def _bounds(cu_seq: Tensor, longest: int, total: int) -> list[int]:
    """The cumulative lengths; where all are the longest, without looking: fake tensors, by which memory is predicted,
    have no values."""
    if (len(cu_seq) - 1) * longest == total:
        return list(range(0, total + 1, longest))
    return cu_seq.tolist()
