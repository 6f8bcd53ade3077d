"""Settings of token shards, mixtures and batches."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import CustomNode, setting

if TYPE_CHECKING:
    from maquette.corpus.sources.row_files import RowSource


@dataclass
class ShardsConfig:
    name: str | None = setting(None, "name of the artifact; by default the tokenizer's and a digest")
    shard_tokens: int = setting(16_777_216, "tokens in one shard file", minimum=1024)
    held_out_window: int = setting(
        24, "held-out runs of so many tokens that also stand in training text are cut out; 0 keeps them", minimum=0
    )
    workers: int | None = setting(None, "threads that encode; by default the number of cores", minimum=1)


@dataclass
class PretokenizedConfig:
    """Tokens that are there already, in place of source, corpus, tokenizer and shards."""

    path: str | None = setting(
        None,
        "tokens that you already have: a file, or a folder of nanoGPT's .bin, OLMo's .npy or datasets' save_to_disk",
    )
    format: str = setting("auto", "how they lie there", choices=("auto", "nanogpt", "olmo", "datasets"))
    dtype: str | None = setting(
        None, "of raw files; by default uint16 where the vocabulary allows, else uint32", choices=("uint16", "uint32")
    )
    tokenizer: str | None = setting(
        None, "folder with their tokenizer.json; without it there are no samples and no bits per byte"
    )
    vocab_size: int | None = setting(None, "number of ids; by default the tokenizer's", minimum=2)
    eos_token_id: int | None = setting(
        None, "id between documents; by default the tokenizer's end of text; without one no masking, no copying score",
        minimum=0,
    )  # fmt: skip
    column: str = setting("input_ids", "format=datasets: the column with the ids")
    validation: float = setting(
        0.01, "share of the training tokens, at their end, held out where no file is for validation",
        minimum=0.0, maximum=0.5,
    )  # fmt: skip

    def validate(self) -> None:
        """Raises `ConfigError` where the vocabulary is not known, or something is set without a path."""
        if self.path is None:
            if self != PretokenizedConfig():
                raise ConfigError("The settings of pretokenized have no effect without pretokenized.path.")
        elif (self.tokenizer is None) == (self.vocab_size is None):
            raise ConfigError(
                "pretokenized.path needs one of pretokenized.tokenizer and pretokenized.vocab_size.",
                "Give the folder of their tokenizer, or the number of ids where you don't have it.",
            )


@dataclass
class PhaseConfig:
    """A stretch of training with its own weights or context."""

    start: float = setting(0.0, "share of the token budget after which the phase begins", minimum=0.0, maximum=1.0)
    weights: dict[str, float] = setting(dict, "weights of the domains in this phase; by default the mixture's")
    context_multiple: int = setting(1, "the context is so many times longer in this phase", minimum=1)
    rope_theta: float | None = setting(None, "rotary base in this phase; by default the model's", minimum=1.0)


@dataclass
class MixtureConfig:
    weights: dict[str, float] = setting(
        dict, "share of each domain in training; by default in proportion to its tokens"
    )
    temperature: float | None = setting(
        None,
        "without weights: shares in proportion to tokens^(1/temperature); 1 is proportional, inf uniform",
        minimum=0.01,
    )
    max_epochs: float | None = setting(
        None, "without weights: as uniform as can be while no domain is read more often than this (UniMax)", minimum=0.1
    )
    phases: list[PhaseConfig] = setting(list, "stretches of training with other weights or a longer context")
    block: int = setting(8, "domains take turns evenly; their order is shuffled within so many sequences", minimum=1)

    def validate(self) -> None:
        """Raises `ConfigError` where shares are given in two ways."""
        given = {"weights": bool(self.weights), "temperature": self.temperature is not None}
        given["max_epochs"] = self.max_epochs is not None
        chosen = [f"mixture.{name}" for name, is_given in given.items() if is_given]
        if len(chosen) > 1:
            raise ConfigError(
                f"{' and '.join(chosen)} are given, and each sets all shares.",
                "Keep one: weights by hand, temperature for a power of the size, or max_epochs for UniMax.",
            )


@dataclass
class DataConfig:
    sequence_length: int = setting(256, "tokens in one sequence", minimum=8, first=True)
    batch_size_tokens: int | None = setting(None, "tokens in one optimiser step; by default the recipe's", minimum=8)
    micro_batch_size: int | None = setting(
        None, "sequences (or examples) in one forward pass; by default what fits", minimum=1
    )
    document_masking: bool = setting(False, "attention does not cross the borders of documents")
    workers: int | None = setting(None, "processes that read batches; by default 2 on a GPU, else none", minimum=0)
    validation_tokens: int = setting(131_072, "validation tokens of each domain", minimum=8)


@dataclass
class CustomDataConfig(CustomNode, DataConfig):
    """A user's data: a LightningDataModule class, and what it is made with. Its attributes say the rest; see
    `custom_data.py`."""


@dataclass
class ExamplesConfig:
    """What sources of examples have in common."""

    kind: str = setting("file", "where they come from")
    limit: int | None = setting(None, "train on so many of them at most, the first ones", minimum=1)


@dataclass
class RowsConfig:
    """Rows of files; with a `split` of a data set."""

    path: str | None = setting(
        None, "file or folder of rows (JSON, CSV, Parquet) in any known shape; with split the name or folder of a "
        "Hugging Face data set",
    )  # fmt: skip
    subset: str | None = setting(None, "of a data set: its configuration")
    split: str | None = setting(None, "of a data set: its split, such as train; without one path is a file or folder")

    def open_rows(self, what: str) -> "RowSource":
        """What `path` names. `what`: the section of these settings. Raises `StageError` where there is nothing."""
        from maquette.corpus.sources.row_files import DataSetRows, RowFiles

        assert self.path is not None
        return (
            RowFiles(self.path, what) if self.split is None else DataSetRows(self.path, self.subset, self.split, what)
        )


@dataclass
class InstructionFilesConfig(ExamplesConfig, RowsConfig):
    """Instructions from files or data sets."""

    kind: str = setting("file", "where they come from", choices=("file", "huggingface"))
    validation: float = setting(0.05, "share of the prompts that is held out", minimum=0.0, maximum=0.9)


@dataclass
class PreferenceFilesConfig(ExamplesConfig, RowsConfig):
    """Preferences from files or data sets."""

    kind: str = setting("file", "where they come from", choices=("file", "huggingface"))
    validation: float = setting(0.1, "share of the prompts that is held out", minimum=0.0, maximum=0.9)
