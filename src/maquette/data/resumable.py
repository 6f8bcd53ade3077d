"""A user's DataLoader that resumes in the middle of an epoch with the batches it would have read.

Of a map-style dataset the order of an epoch is drawn from a number that depends on the seed and the epoch alone, and
what a checkpoint keeps is how many batches were handed out: resuming draws the order again and leaves that many out
without reading them. A loader with a state of its own (torchdata's) is left alone. An iterable dataset without one
can't be resumed so; that is said before training.

What a dataset itself draws for each example (augmentation) is of its processes' random numbers and not covered.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.progress import say


class ResumableLoader:
    """The batches of `loader`, a part of them for process `rank` of `world_size`; its state counts what was handed out.

    A loader with a generator of its own keeps that generator's seed in place of `seed`.
    """

    def __init__(self, loader: DataLoader[Any], *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.loader, self.rank, self.world_size = loader, rank, world_size
        self.seed = seed if loader.generator is None else loader.generator.initial_seed()
        self.epoch = self.position = 0

    def __len__(self) -> int:
        """Batches of an epoch of this process; the rest that would not be the same for all is left out."""
        return len(self.loader) // self.world_size

    def __iter__(self) -> Iterator[Any]:
        if self.position >= len(self):
            self.epoch, self.position = self.epoch + 1, 0
        for batch in self._rest():
            self.position += 1
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position, "length": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises `ConfigError` where an epoch has another length: other data, or another batch size."""
        if state["length"] != len(self):
            raise ConfigError(
                f"The checkpoint's epoch has {state['length']:,} batches, this loader's {len(self):,}.",
                "Resume with the data and the batch size it began with, or start anew with force=true.",
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _rest(self) -> Iterable[Any]:
        """A loader of what is left of the epoch."""
        loader = self.loader
        batches = _Rest(self._order(), self.position, len(self), self.rank, self.world_size)
        chosen: dict[str, Any] = {"batch_sampler": batches}
        if loader.batch_sampler is None:  # batch_size=None: an example is a batch
            chosen = {"batch_size": None, "sampler": batches}
        return DataLoader(
            loader.dataset,
            **chosen,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            # Of its own: making an iterator draws a seed, which must not move the model's random numbers.
            generator=torch.Generator().manual_seed(self._number()),
        )

    def _order(self) -> Iterator[Any]:
        """The epoch's batches of indices."""
        loader = self.loader
        drawn_from = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
        set_epoch = getattr(loader.sampler, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(self.epoch)
        number = self._number()
        for holder in (loader, loader.sampler):
            if (generator := getattr(holder, "generator", None)) is not None:
                generator.manual_seed(number)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number)
            if isinstance(loader.sampler, RandomSampler | SequentialSampler):  # whose first index draws the order
                order = iter(drawn_from)
                first = list(itertools.islice(order, 1))
                return itertools.chain(first, order)
            return iter(list(drawn_from))

    def _number(self) -> int:
        return int(digest(["epoch", self.seed, self.epoch])[:15], 16)


class _Rest:
    """Every `world_size`-th of an epoch's batches from `rank` on, without the first `position` of them."""

    def __init__(self, order: Iterator[Any], position: int, length: int, rank: int, world_size: int) -> None:
        self._order, self._left = order, length - position
        self._first, self._step = rank + position * world_size, world_size

    def __len__(self) -> int:
        return self._left

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(itertools.islice(self._order, self._first, None, self._step), self._left)


def resumable(loader: Any, called: str, *, seed: int, rank: int = 0, world_size: int = 1) -> Any:
    """The loader as it can be resumed, or itself where it has a state of its own or none is to be had; that is said.

    `called` is whose it is, for messages.
    """
    if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        return loader
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        return ResumableLoader(loader, seed=seed, rank=rank, world_size=world_size)
    if rank == 0:
        say(
            f"warning: {called} gives batches without a state (state_dict): a run that is stopped resumes with its "
            "weights, and begins the data's epoch again"
        )
    return loader


def make_resumable(data: LightningDataModule, *, seed: int) -> LightningDataModule:
    """The same datamodule, whose `train_dataloader` gives resumable loaders."""
    own, called = data.train_dataloader, f"{type(data).__module__}.{type(data).__qualname__}"

    @functools.wraps(own)
    def train_dataloader() -> Any:
        trainer = data.trainer
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return resumable(own(), called, seed=seed, rank=rank, world_size=world_size)

    data.train_dataloader = train_dataloader  # type: ignore[method-assign]
    return data
