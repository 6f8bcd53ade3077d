"""A LightningDataModule of a user's in the place of our text.

    # conf/data/theirs.yaml
    _target_: stranger.data.Sorting
    sequence_length: 32

    maquette train data=theirs

Attributes say what the recipe has to know: `vocab_size` (or `tokenizer`, a folder with tokenizer.json), and
`sequence_length`. A batch of its `train_dataloader` is one optimiser step of one process; how many tokens it stands for
follows from the loader's `batch_size`, or is `batch_size_tokens`. A map-style loader resumes exactly (resumable.py).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from maquette.artifacts import ConfigError
from maquette.artifacts.settings import plain_arguments
from maquette.artifacts.targets import build_part, users_code
from maquette.data.resumable import make_resumable
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
