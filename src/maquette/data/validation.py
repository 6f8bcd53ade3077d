"""Loaders of held-out text for Lightning's validation: one for each domain, and one that shows whether it copies.

Every process takes its share of the batches. With sharded weights all of them have to take part in every round, so the
last one may be given a batch that does not count.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from maquette.data.batches import TokenBatch


@dataclasses.dataclass
class HeldOutBatch:
    """`tokens` of one `domain`, and the `bytes` of text that its targets stand for (0: nobody knows). `marks (B, T)`:
    of copying probes, whose kind is in `domain`. `counts`: whether it is this process's to count."""

    tokens: TokenBatch
    domain: str
    bytes: int = 0
    marks: torch.Tensor | None = None
    counts: bool = True

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "HeldOutBatch":
        """The tokens on another device."""
        return dataclasses.replace(self, tokens=self.tokens.to(device, non_blocking=non_blocking))


class HeldOutLoader:
    """Calls `make()` at each validation: how much is read depends on the step. Without a length, so that Lightning asks
    anew each time."""

    def __init__(self, make: Callable[[], Sequence[HeldOutBatch]], rank: int = 0, world_size: int = 1) -> None:
        self._make, self._rank, self._world_size = make, rank, world_size

    def __iter__(self) -> Iterator[HeldOutBatch]:
        batches = self._make()
        for start in range(0, len(batches), self._world_size):
            mine = start + self._rank
            chosen = batches[min(mine, len(batches) - 1)]
            yield chosen if mine < len(batches) else dataclasses.replace(chosen, counts=False)
