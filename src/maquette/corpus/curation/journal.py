"""The journal: one row for every record that might have been a page, with what became of it and why.

Everything that is reported (the funnel, samples of each rule, histograms, one document's story) is read off it.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import atomic_file
from maquette.corpus.cleaning import Rejection
from maquette.corpus.curation.features import FEATURES
from maquette.corpus.curation.urls import host_of
from maquette.corpus.document import Document

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_EXCERPT = 400

STEPS = (
    "record", "answer", "url", "page", "language", "url duplicate", "gopher", "c4", "fineweb", "harmful", "quality",
    "outlier", "near duplicate", "repetition",
)  # fmt: skip
"""What may reject a document, in order; a reason is a step, a colon and the rule."""

SCORES = ("surprise", "quality", "unsafe", "domain_confidence", "language_confidence")


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One row. `reason` is empty for what is kept; `characters` are of the text as it was extracted."""

    id: str
    url: str
    host: str
    domain: str
    language: str
    characters: int
    reason: str
    value: float
    threshold: float
    excerpt: str
    private: str  # JSON: kind -> replacements
    scores: dict[str, float]


def entry(
    document: Document, *, characters: int, rejection: Rejection | None = None, threshold: float = float("nan"),
    private: dict[str, int] | None = None, scores: dict[str, float] | None = None,
) -> Entry:  # fmt: skip
    """The row of a document, kept or (with a `rejection`) not."""
    meta = document.meta
    return Entry(
        id=document.id,
        url=document.url or "",
        host=host_of(document.url),
        domain=document.domain,
        language=str(meta.get("language", "")),
        characters=characters,
        reason=rejection.reason if rejection else "",
        value=float(rejection.value) if rejection else float("nan"),
        threshold=threshold,
        excerpt=document.text[:_EXCERPT],
        private=json.dumps(private or {}, sort_keys=True),
        scores={"language_confidence": float(meta.get("language_confidence", float("nan")))} | (scores or {}),
    )


def _schema() -> "pa.Schema":
    import pyarrow as pa

    texts = ("id", "url", "host", "domain", "language")
    numbers = ("value", "threshold")
    return pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("characters", pa.int64()),
            ("reason", pa.string()),
            *((name, pa.float64()) for name in numbers),
            ("excerpt", pa.string()),
            ("private", pa.string()),
            *((name, pa.float32()) for name in (*SCORES, *FEATURES)),
        ]
    )


def write_journal(path: Path, entries: Iterable[Entry]) -> None:
    """Writes rows, in their order, to a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema()
    rows = list(entries)
    columns: dict[str, list[Any]] = {}
    for name in schema.names:
        if name in SCORES or name in FEATURES:
            columns[name] = [row.scores.get(name) for row in rows]
        else:
            columns[name] = [getattr(row, name) for row in rows]
    with atomic_file(path) as temporary:
        parquet.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")


def read_journal(path: Path, columns: list[str] | None = None) -> "pd.DataFrame":
    """The rows as a table. Raises `StageError` where there are none."""
    import pandas as pd

    from maquette.artifacts.errors import StageError

    if not path.exists():
        raise StageError(f"{path} is missing.", "Only a curated corpus has a journal: maquette corpus source=warc ...")
    return pd.read_parquet(path, columns=columns)


def step_of(reason: str) -> str:
    """The step that a reason belongs to; empty for what is kept."""
    return reason.partition(":")[0]
