"""One validation text for several corpora: documents that are known to be clean take the place of a corpus's own.

Corpora that differ in how they were filtered hold out text that differs as much, so losses on it say nothing. What all
are judged on forms a domain of its own, which no training text has.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_file
from maquette.corpus.cleaning import normalize
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document, write_documents
from maquette.corpus.sources import open_source
from maquette.corpus.workers import workers

CLEAN = "clean"
"""Name of the domain, and of the made web's file with texts that stand on none of its pages."""


def judge_on(path: Path, folder: Path) -> dict[str, Any]:
    """Makes the documents at `path` (JSONL or Parquet) the validation split of the corpus in `folder`; how many.

    Raises `StageError` where there are none.
    """
    documents = list(_read(path))
    if not documents:
        raise StageError(
            f"corpus.judge={path} holds no documents.", "Give a JSONL or Parquet file with the field text."
        )
    with atomic_file(folder / "validation.parquet") as temporary:
        write_documents(temporary, documents)
    return {"documents": len(documents), "bytes": sum(len(document.text.encode()) for document in documents)}


def _read(path: Path) -> Iterator[Document]:
    kind = "parquet" if path.suffix in (".parquet", ".pq") or any(path.rglob("*.parquet")) else "jsonl"
    try:
        with workers(1) as pool:
            for document in open_source(SourceConfig(kind=kind, path=str(path))).documents(pool):
                found = normalize(Document(document.id, document.text, document.url, CLEAN))
                if isinstance(found, Document) and found.text.strip():
                    yield found
    except StageError as error:
        raise StageError(error.message, f"Check corpus.judge. {error.hint}") from None
