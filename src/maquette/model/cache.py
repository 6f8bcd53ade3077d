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
    2 x layers x batch x key-value heads x length x head width numbers.
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
        shape = (config.num_hidden_layers, batch, config.key_value_heads, length, config.width_of_head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length, self.used = length, 0
        self.starts = column_starts(starts, device)
        # (B, 1) the last token read: token shift needs it.
        self.last_token: Tensor | None = None

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the new `key` and `value (B, K, T, W)` of a layer and gives all up to them, `(B, K, used + T, W)`.

        The columns count as used once `advance` is called, after the last layer. Raises `ValueError` where they do
        not fit.
        """
        end = self.used + key.size(2)
        if end > self.length:
            raise ValueError(f"The cache holds {self.length} tokens; {self.used} + {key.size(2)} do not fit.")
        self.keys[layer, :, :, self.used : end] = key
        self.values[layer, :, :, self.used : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: Tensor) -> None:
        """Counts the columns of `tokens (B, T)` as used."""
        self.used += tokens.size(1)
        self.last_token = tokens[:, -1:].clone()

    def keep(self, rows: Tensor) -> None:
        """Goes on with `rows` (their numbers, int64) alone, without the columns that none of them sees."""
        starts = None if self.starts is None else self.starts[rows]
        first = 0 if starts is None else int(starts.min())
        self.keys, self.values = self.keys[:, rows, :, first:], self.values[:, rows, :, first:]
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
        shape = (self.keys.size(0), count, self.keys.size(2), filled + room, self.keys.size(4))
        keys, values = (torch.zeros(shape, device=device, dtype=self.keys.dtype) for _ in range(2))
        end = 0
        for one, chosen, starts in columns:
            begin, end = end, end + len(starts)
            first = int(starts.min())
            part = slice(filled - (one.used - first), filled)
            keys[:, begin:end, :, part] = one.keys[:, chosen, :, first : one.used]
            values[:, begin:end, :, part] = one.values[:, chosen, :, first : one.used]
        self.starts = column_starts(torch.cat([starts - one.used + filled for one, _, starts in columns]), device)
        self.keys, self.values, self.length, self.used = keys, values, filled + room, filled
        assert self.last_token is not None and other.last_token is not None
        self.last_token = torch.cat([self.last_token[rows], other.last_token])


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
