"""Tokens chosen in tensors that stay where they are, so that a GPU repeats the step without being told each operation.

With small batches a step of generation is some hundred operations, and starting them costs a GPU more than their
arithmetic. A CUDA graph replays them by one call; it needs the same shapes at the same addresses in every step, and
nothing that waits for the device. So here the column is a number on the device: keys are written where it says, every
query meets all columns of the cache under a mask, and what was chosen is written into tables that are read after some
steps. On a CPU the same steps run one by one, and give the tokens of `Decoder`
(tests/model/test_static_decoding.py); the graph itself was never run. For mixtures of experts and a user's own parts
nothing is captured.
"""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from maquette.model.cache import KeyValueCache
from maquette.model.decoding import Decoder
from maquette.model.transformer import Transformer

Chosen = tuple[Tensor, Tensor, Tensor, Tensor]
"""Tokens `(B,)`, their log-probabilities, the likeliest tokens `(B, top)` and theirs."""


class StaticDecoder(Decoder):
    """`decoder(tokens (B,)) -> hidden (B, D)`, in tensors that stay where they are. `column`: how many columns of the
    cache are used; `cache.used`, which the host counts, is whoever's who calls it."""

    def __init__(self, core: Transformer, cache: KeyValueCache) -> None:
        super().__init__(core, cache)
        device = cache.keys.device
        self.column = torch.tensor([cache.used], device=device)
        self.starts = torch.zeros(1, dtype=torch.int64, device=device) if cache.starts is None else cache.starts
        self.columns, self.places = (torch.arange(count, device=device) for count in (cache.length, cache.ring))
        assert cache.last_token is not None
        cache.last_token = cache.last_token.clone()

    def _next_positions(self) -> Tensor:
        return (self.column - self.starts).clamp(0, self.config.max_position_embeddings - 1)

    def _seen(self) -> dict[int | None, Tensor | None]:
        in_ring = self.column - (self.column - self.places) % self.cache.ring
        starts = self.starts[:, None]
        full = (self.columns <= self.column) & (self.columns >= starts)
        seen: dict[int | None, Tensor | None] = {None: full[:, None, None]}
        return seen | {window: (in_ring >= starts)[:, None, None] for window in set(self.config.windows) - {None}}

    def _extend(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.of_layer(index)
        place = self.column if self.cache.windows[index] is None else self.column % self.cache.ring
        for cached, new in ((keys, key), (values, value)):
            cached.index_copy_(2, place, new.to(cached.dtype))
        return keys, values

    def _advance(self, tokens: Tensor) -> None:
        assert self.cache.last_token is not None
        self.cache.last_token.copy_(tokens[:, None])
        self.column += 1


class StaticSteps:
    """Up to `most` tokens of every row by one call. Each step reads `tokens (B,)` and chooses the next ones.

    `choose(hidden (B, D), uniform (B, 1))`: without looking at a number. `uniform (B, S)`: numbers to draw with, from
    column `drawn` on. `changed`: tensors that `choose` changes in place.
    """

    def __init__(
        self, decoder: StaticDecoder, choose: Callable[[Tensor, Tensor], Chosen], tokens: Tensor, uniform: Tensor,
        *, drawn: int, most: int, changed: tuple[Tensor, ...] = (),
    ) -> None:  # fmt: skip
        self.decoder, self.choose, self.uniform, self.most = decoder, choose, uniform, most
        self.tokens = tokens.clone()
        self.drawn, self.step = (torch.tensor([at], device=tokens.device) for at in (drawn, 0))
        assert decoder.cache.last_token is not None
        self.state = (self.tokens, self.drawn, self.step, decoder.column, decoder.cache.last_token, *changed)
        self.made: tuple[Tensor, ...] = ()
        self.graph: torch.cuda.CUDAGraph | None = None
        if tokens.is_cuda:
            self._capture()

    def run(self, steps: int) -> tuple[Tensor, ...]:
        """What is `Chosen` in the next `steps`, each part `(steps, B, ...)`; good until the next call."""
        self.step.zero_()
        for _ in range(steps):
            if self.graph is None:
                self._once()
            else:
                self.graph.replay()
        self.decoder.cache.used += steps
        return tuple(table[:steps] for table in self.made)

    def _once(self) -> None:
        hidden = self.decoder(self.tokens)
        uniform = self.uniform.index_select(1, self.drawn.clamp(max=self.uniform.size(1) - 1))
        chosen = self.choose(hidden, uniform)
        if not self.made:
            self.made = tuple(part.new_empty(self.most, *part.shape) for part in chosen)
        for table, part in zip(self.made, chosen, strict=True):
            table.index_copy_(0, self.step, part[None])
        self.tokens.copy_(chosen[0])
        self.drawn += 1
        self.step += 1

    def _capture(self) -> None:
        """Records a step, after two that warm up and leave all as it was: they wrote the column that comes next."""
        device, before = self.tokens.device.type, [one.clone() for one in self.state]
        with contextlib.ExitStack() as stack:
            if torch.is_autocast_enabled(device):  # weights that are cast outside of the graph may be gone when it runs
                kind = torch.get_autocast_dtype(device)
                stack.enter_context(torch.autocast(device, kind, cache_enabled=False))
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(2):
                    self._once()
                    for one, value in zip(self.state, before, strict=True):
                        one.copy_(value)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._once()
            self.graph = graph
