"""Where documents come from: each source gives documents in a stable order, and knows nothing of what follows."""

from maquette.corpus.config import SourceConfig
from maquette.corpus.sources.base import Source

__all__ = ["Source", "open_source"]


def open_source(config: SourceConfig) -> Source:
    """The source that a config asks for. Raises `StageError` where its path or its package is missing."""
    if config.kind == "jsonl":
        from maquette.corpus.sources.jsonl import JsonLines

        return JsonLines(config)
    if config.kind == "parquet":
        from maquette.corpus.sources.parquet import Parquet

        return Parquet(config)
    if config.kind == "text":
        from maquette.corpus.sources.text import TextFiles

        return TextFiles(config)
    if config.kind == "warc":
        from maquette.corpus.sources.warc.source import Warc

        return Warc(config)
    if config.kind == "huggingface":
        from maquette.corpus.sources.huggingface import HuggingFace

        return HuggingFace(config)
    from maquette.corpus.sources.installed.source import Installed

    return Installed(config)
