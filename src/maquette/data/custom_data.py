"""A LightningDataModule of a user's in the place of our text.

    # conf/data/theirs.yaml
    _target_: stranger.data.Sorting
    sequence_length: 32

    maquette train data=theirs

Attributes say what the recipe has to know: `vocab_size` (or `tokenizer`, a folder with tokenizer.json), and
`sequence_length`. A batch of its `train_dataloader` is one optimiser step of one process; how many tokens it stands for
follows from the loader's `batch_size`, or is `batch_size_tokens`.

A map-style loader resumes in the middle of an epoch with the batches it would have read: the order of an epoch is drawn
from a number that depends on the seed and the epoch alone, and what a checkpoint keeps is how many batches were handed
out, so resuming draws the order again and leaves that many out without reading them. A loader with a state of its own
(torchdata's) is left alone. An iterable dataset without one can't be resumed so; that is said before training. What a
dataset itself draws for each example (augmentation) is of its processes' random numbers and not covered.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from maquette.artifacts import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.progress import say
from maquette.artifacts.settings import plain_arguments
from maquette.artifacts.targets import build_part, users_code
from maquette.data.process_group import data_place
from maquette.text import Tokenizer
from maquette.text.tokenizer import MissingTokenizer


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What a user's data say of themselves. `batches`: of one process in an epoch; None of data without a length."""

    vocab_size: int
    sequence_length: int
    batch_size_tokens: int
    batches: int | None


def build_data(node: Mapping[str, Any], *, seed: int) -> LightningDataModule:
    """The datamodule that a node names, whose training resumes where it can. Raises `ConfigError` for what is none."""
    data = build_part(str(node["_target_"]), plain_arguments(node), LightningDataModule, key="data")
    return make_resumable(data, seed=seed)


def facts_of(data: LightningDataModule, target: str) -> DataFacts:
    """Sets the data up, and reads its attributes and the length of its loader.

    Raises `ConfigError` that names the attribute which is missing.
    """
    with users_code(target):
        data.prepare_data()
        data.setup("fit")
        loader: Any = data.train_dataloader()
    length = _number(data, "sequence_length", target)
    tokens = getattr(data, "batch_size_tokens", None)
    if tokens is None:
        inner = getattr(loader, "loader", loader)
        size = getattr(inner, "batch_size", None) or getattr(getattr(inner, "batch_sampler", None), "batch_size", None)
        if size is None:
            raise ConfigError(
                f"data: {target} does not say how many tokens a batch has.", "Give it an attribute batch_size_tokens."
            )
        tokens = int(size) * length
    try:
        batches: int | None = len(loader)
    except TypeError:
        batches = None
    return DataFacts(tokenizer_of(data, target).vocab_size, length, int(tokens), batches)


def tokenizer_of(data: LightningDataModule, target: str) -> Tokenizer:
    """The data's tokenizer, or a stand-in that knows the size of the vocabulary."""
    given = getattr(data, "tokenizer", None)
    if isinstance(given, Tokenizer):
        return given
    if isinstance(given, str | Path):
        return Tokenizer.load(given)
    return MissingTokenizer(_number(data, "vocab_size", target), None)


def _number(data: LightningDataModule, name: str, target: str) -> int:
    value = getattr(data, name, None)
    if not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"data: {target} has no attribute {name}, so the recipe can't choose a model.",
            f"Set self.{name} to a whole number in its __init__.",
        )
    return value


# A loader that resumes exactly


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
                "Resume with the data and the batch size it began with, or start over with force=true.",
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
        rank, world_size = data_place(trainer)
        return resumable(own(), called, seed=seed, rank=rank, world_size=world_size)

    data.train_dataloader = train_dataloader  # type: ignore[method-assign]
    return data
