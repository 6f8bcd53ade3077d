"""The memory of generation: what a model keeps of the tokens it has read, so that each new one costs one step.

Prompts of different lengths are padded on the left: row b's text begins at column `starts[b]`. Columns before it are
never attended to, and positions count from there.
"""

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from maquette.model.architecture import LSTMConfig, TransformerConfig
from maquette.model.core_config import CoreConfig
from maquette.model.custom_parts import attention_keeps_cache


class KeyValueCache:
    """Keys and values of every layer, in tensors allocated once for `length` columns; `used` says how many are filled.

    Pass it to `forward(tokens, cache=cache)`: the tokens are taken to stand in the columns after those used. Memory:
    2 x layers x batch x key-value heads x length x head width numbers; a layer with a sliding window keeps its window
    alone, column c in the place c modulo `ring` (a rolling buffer; Jiang et al. 2023, "Mistral 7B", section 2).
    """

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        starts: Tensor | None = None,
    ) -> None:
        self.windows = config.windows
        sliding = [window is not None for window in self.windows]
        self._places = [sliding[:layer].count(kind) for layer, kind in enumerate(sliding)]  # among those of its kind
        self.ring = min(config.sliding_window or length, length)
        shape = (batch, config.key_value_heads, length, config.width_of_head)
        ring_shape = (batch, config.key_value_heads, self.ring, config.width_of_head)
        full, rings = sliding.count(False), sliding.count(True)
        self.keys, self.values = (torch.zeros(full, *shape, device=device, dtype=dtype) for _ in range(2))
        self.ring_keys, self.ring_values = (
            torch.zeros(rings, *ring_shape, device=device, dtype=dtype) for _ in range(2)
        )
        self.length, self.used = length, 0
        self.starts = column_starts(starts, device)
        # (B, 1) the last token read: token shift needs it.
        self.last_token: Tensor | None = None

    def of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """The keys and values that are kept for a layer, `(B, K, length or ring, W)`."""
        keys, values = (self.keys, self.values) if self.windows[layer] is None else (self.ring_keys, self.ring_values)
        return keys[self._places[layer]], values[self._places[layer]]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new `key` and `value (B, K, T, W)` of a layer and gives all up to them that any of them may see,
        `(B, K, S, W)`, in their order; to a single new token those of a sliding window in that of `seen_in_ring`.

        The columns count as used once `advance` is called, after the last layer. Raises `ValueError` where they do
        not fit.
        """
        end = self.used + key.size(2)
        if end > self.length:
            raise ValueError(f"The cache holds {self.length} tokens; {self.used} + {key.size(2)} do not fit.")
        keys, values = self.of_layer(layer)
        if (window := self.windows[layer]) is not None:
            return self._extend_ring(window, keys, key), self._extend_ring(window, values, value)
        keys[:, :, self.used : end] = key
        values[:, :, self.used : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def _extend_ring(self, window: int, ring: Tensor, new: Tensor) -> Tensor:
        end, count = self.used + new.size(2), new.size(2)
        if count == 1:
            ring[:, :, self.used % self.ring] = new[:, :, 0]
            return ring[:, :, : min(end, self.ring)]
        given = new
        if before := min(self.used, window - 1):
            given = torch.cat([ring[:, :, self._in_ring(self.used - before, self.used)].to(new.dtype), new], dim=2)
        last = min(count, self.ring)
        ring[:, :, self._in_ring(end - last, end)] = new[:, :, count - last :].to(ring.dtype)
        return given

    def _in_ring(self, begin: int, end: int) -> Tensor:
        """The places of these columns."""
        return torch.arange(begin, end, device=self.keys.device) % self.ring

    def seen_in_ring(self) -> Tensor | None:
        """What a single new token sees of a layer with a sliding window, `(B, 1, 1, S)` over the filled places; None
        where it sees them all."""
        if self.starts is None:
            return None
        places = torch.arange(min(self.used + 1, self.ring), device=self.keys.device)
        columns = self.used - (self.used - places) % self.ring
        return ((columns >= self.starts[:, None]) | (columns == self.used))[:, None, None]

    def advance(self, tokens: Tensor) -> None:
        """Counts the columns of `tokens (B, T)` as used."""
        self.used += tokens.size(1)
        self.last_token = tokens[:, -1:].clone()

    def keep(self, rows: Tensor) -> None:
        """Goes on with `rows` (their numbers, int64) alone, without the columns that none of them sees."""
        starts = None if self.starts is None else self.starts[rows]
        first = 0 if starts is None else int(starts.min())
        self.keys, self.values = self.keys[:, rows, :, first:], self.values[:, rows, :, first:]
        if len(self.ring_keys):
            self.ring_keys, self.ring_values = (
                one[:, rows].roll(-first, dims=3) for one in (self.ring_keys, self.ring_values)
            )
        self.length, self.used = self.length - first, self.used - first
        self.starts = None if starts is None else column_starts(starts - first, self.keys.device)
        self.last_token = None if self.last_token is None else self.last_token[rows]

    def join(self, rows: Tensor, other: "KeyValueCache", room: int) -> None:
        """Goes on with `rows` and, behind them, those of `other`, all ending at one column; `room`: columns to come."""
        device, columns = self.keys.device, []
        for one, chosen in ((self, rows), (other, slice(None))):
            starts = (
                torch.zeros(one.keys.size(1), dtype=torch.int64, device=device) if one.starts is None else one.starts
            )
            columns.append((one, chosen, starts[chosen]))
        filled = max(one.used - int(starts.min()) for one, _, starts in columns)
        count = sum(len(starts) for *_, starts in columns)
        length = filled + room
        ring = min(window for window in (*self.windows, length) if window is not None)
        keys, values = (_emptied(self.keys, count, length) for _ in range(2))
        ring_keys, ring_values = (_emptied(self.ring_keys, count, ring) for _ in range(2))
        end = 0
        for one, chosen, starts in columns:
            begin, end = end, end + len(starts)
            first = int(starts.min())
            part = slice(filled - (one.used - first), filled)
            keys[:, begin:end, :, part] = one.keys[:, chosen, :, first : one.used]
            values[:, begin:end, :, part] = one.values[:, chosen, :, first : one.used]
            if len(ring_keys):
                last = min(one.used - first, one.ring, ring)
                source = one._in_ring(one.used - last, one.used)
                target = torch.arange(filled - last, filled, device=device) % ring
                ring_keys[:, begin:end, :, target] = one.ring_keys[:, chosen][:, :, :, source]
                ring_values[:, begin:end, :, target] = one.ring_values[:, chosen][:, :, :, source]
        self.starts = column_starts(torch.cat([starts - one.used + filled for one, _, starts in columns]), device)
        self.keys, self.values, self.ring_keys, self.ring_values = keys, values, ring_keys, ring_values
        self.length, self.used, self.ring = length, filled, ring
        assert self.last_token is not None and other.last_token is not None
        self.last_token = torch.cat([self.last_token[rows], other.last_token])


def _emptied(like: Tensor, rows: int, columns: int) -> Tensor:
    """As `like (layers, B, K, S, W)`, for other rows and columns."""
    layers, _, heads, _, width = like.shape
    return torch.zeros(layers, rows, heads, columns, width, device=like.device, dtype=like.dtype)


class RecurrentCache:
    """The state of the recurrent baseline, `(layers, B, D)` each: the same use as `KeyValueCache`, without a length."""

    def __init__(
        self,
        config: LSTMConfig,
        batch: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        starts: Tensor | None = None,
    ) -> None:
        shape = (config.num_hidden_layers, batch, config.hidden_size)
        self.hidden = torch.zeros(shape, device=device, dtype=dtype)
        self.cell = torch.zeros(shape, device=device, dtype=dtype)
        self.used = 0
        self.starts = column_starts(starts, device)

    def keep(self, rows: Tensor) -> None:
        """Goes on with `rows` (their numbers, int64) alone."""
        self.hidden, self.cell = self.hidden[:, rows], self.cell[:, rows]
        self.starts = None if self.starts is None else self.starts[rows]

    def join(self, rows: Tensor, other: "RecurrentCache", room: int) -> None:
        """Goes on with `rows` and, behind them, those of `other`; where texts began matters no more."""
        self.hidden = torch.cat([self.hidden[:, rows], other.hidden], dim=1)
        self.cell = torch.cat([self.cell[:, rows], other.cell], dim=1)
        self.used, self.starts = max(self.used, other.used), None


class RereadingCache:
    """Of cores without a cache of their own: the tokens read so far, which are read again with each new one.

    The same text as with a cache, at a cost that grows with the square of its length.
    """

    def __init__(self, batch: int, device: torch.device | str = "cpu", *, starts: Tensor | None = None) -> None:
        self.tokens = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        self.starts = column_starts(starts, device)

    @property
    def used(self) -> int:
        return self.tokens.size(1)

    def read(self, core: Callable[..., Tensor], tokens: Tensor) -> Tensor:
        """The hidden states of new `tokens (B, T)` after all before them, `(B, T, D)`."""
        self.tokens = torch.cat([self.tokens, tokens], dim=1)
        if self.starts is None:
            return core(self.tokens)[:, -tokens.size(1) :]
        columns = torch.arange(self.used, device=tokens.device)
        # Padding is a document of its own, before the row's text.
        segments = (columns >= self.starts[:, None]).long()
        positions = (columns - self.starts[:, None]).clamp(min=0)
        return core(self.tokens, positions=positions, segments=segments)[:, -tokens.size(1) :]

    def keep(self, rows: Tensor) -> None:
        """Goes on with `rows` (their numbers, int64) alone."""
        self.tokens = self.tokens[rows]
        self.starts = None if self.starts is None else self.starts[rows]

    def join(self, rows: Tensor, other: "RereadingCache", room: int) -> None:
        """Goes on with `rows` and, behind them, those of `other`, all ending at one column."""
        used, parts = max(self.used, other.used), []
        for one, chosen in ((self, rows), (other, slice(None))):
            starts = torch.zeros(len(one.tokens), dtype=torch.int64) if one.starts is None else one.starts
            shift = used - one.used
            parts.append((F.pad(one.tokens, (shift, 0))[chosen], starts.to(self.tokens.device)[chosen] + shift))
        self.tokens = torch.cat([tokens for tokens, _ in parts])
        self.starts = column_starts(torch.cat([starts for _, starts in parts]), self.tokens.device)


Cache = KeyValueCache | RecurrentCache | RereadingCache


def new_cache(
    config: CoreConfig,
    batch: int,
    length: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    starts: Tensor | None = None,
) -> Cache:
    """The cache that fits a core of ours, for `batch` rows of at most `length` tokens; row b's text begins at
    `starts[b]`. Cores and attention layers of a user's read everything again, with a warning."""
    if isinstance(config, LSTMConfig):
        return RecurrentCache(config, batch, device, dtype, starts=starts)
    if isinstance(config, TransformerConfig) and attention_keeps_cache(config):
        return KeyValueCache(config, batch, length, device, dtype, starts=starts)
    called = config.attention if isinstance(config, TransformerConfig) else config.description
    warnings.warn(f"{called} keeps no cache: each new token reads the whole text again, which is slow.", stacklevel=2)
    return RereadingCache(batch, device, starts=starts)


def column_starts(starts: Tensor | None, device: torch.device | str) -> Tensor | None:
    """`starts (B,)` on the device, or None where every row begins at the first column."""
    return None if starts is None or not bool(starts.any()) else starts.to(device)
