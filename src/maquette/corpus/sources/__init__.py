"""Where documents come from: each source gives documents in a stable order, and knows nothing of what follows."""

import importlib
from pathlib import Path

from maquette.artifacts.errors import StageError
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.base import Source
from maquette.corpus.workers import workers

__all__ = ["Source", "open_source", "read_examples"]

_SOURCES = {
    "installed": ("installed.source", "Installed"),
    "jsonl": ("local", "JsonLines"),
    "parquet": ("local", "Parquet"),
    "text": ("local", "TextFiles"),
    "huggingface": ("huggingface", "HuggingFace"),
    "warc": ("warc.source", "Warc"),
}
"""Module and class of each `source.kind`."""


def open_source(config: SourceConfig) -> Source:
    """The source that a config asks for. Raises `StageError` where its path or its package is missing."""
    module, name = _SOURCES[config.kind]
    source: Source = getattr(importlib.import_module(f"{__name__}.{module}"), name)(config)
    return source


def read_examples(path: str, key: str) -> list[Document]:
    """The documents of a JSONL or Parquet file, or of a folder of them, that the setting `key` names.

    Raises `StageError` that names the setting where they can't be read.
    """
    kind = "parquet" if path.endswith((".parquet", ".pq")) or any(Path(path).rglob("*.parquet")) else "jsonl"
    try:
        with workers(1) as pool:
            return list(open_source(SourceConfig(kind=kind, path=path)).documents(pool))
    except StageError as error:
        raise StageError(error.message, f"Check {key}. {error.hint}") from None
