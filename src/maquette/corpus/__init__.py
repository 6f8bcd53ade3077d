"""Documents: where they come from, what is kept of them, how they are split."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maquette.corpus.document import SPLITS, Document, domains, read_documents, write_documents
    from maquette.corpus.pipeline import Summary, make_corpus
    from maquette.corpus.sources import Source, open_source

__all__ = [
    "SPLITS",
    "Document",
    "Source",
    "Summary",
    "domains",
    "make_corpus",
    "open_source",
    "read_documents",
    "write_documents",
]

_MODULES = {
    "document": ("SPLITS", "Document", "domains", "read_documents", "write_documents"),
    "pipeline": ("Summary", "make_corpus"),
    "sources": ("Source", "open_source"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: `maquette.corpus.config` alone stays light."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"maquette.corpus.{module}"), name)
    raise AttributeError(f"module 'maquette.corpus' has no attribute '{name}'")
