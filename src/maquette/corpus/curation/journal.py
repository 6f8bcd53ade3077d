"""The journal: one row for every record that might have been a page, with what became of it and why.

Everything that is reported (the funnel, samples of each rule, histograms, one document's story) is read off it.
"""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_file
from maquette.artifacts.reading import open_parquet, parse_json, reading
from maquette.artifacts.settings import nearest
from maquette.corpus.config import CurationConfig
from maquette.corpus.curation.rules import FEATURES, rules
from maquette.corpus.curation.urls import host_of
from maquette.corpus.document import Document, Rejection

if TYPE_CHECKING:
    import pandas as pd

_EXCERPT = 400

STEPS = (
    "record", "answer", "url", "page", "language", "url duplicate", "gopher", "c4", "fineweb", "safety", "quality",
    "outlier", "near duplicate", "repetition",
)  # fmt: skip
"""What may reject a document, in order; a reason is a step, a colon and the rule."""

SCORES = ("surprise", "quality", "unsafe", "domain_confidence", "language_confidence")


def entry(
    result: Document | Rejection, *, characters: int, threshold: float = math.nan, pii: dict[str, int] | None = None,
    scores: dict[str, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The row of a document, kept or rejected. `reason` is empty for what is kept; `characters` are of the text as it
    was extracted; `pii` is JSON, kind -> replacements."""
    rejection = result if isinstance(result, Rejection) else None
    document = result.document if isinstance(result, Rejection) else result
    return {
        "id": document.id,
        "url": document.url or "",
        "host": host_of(document.url),
        "domain": document.domain,
        "language": str(document.meta.get("language", "")),
        "characters": characters,
        "reason": rejection.reason if rejection else "",
        "value": float(rejection.value) if rejection else math.nan,
        "threshold": threshold,
        "excerpt": document.text[:_EXCERPT],
        "pii": json.dumps(pii or {}, sort_keys=True),
        "language_confidence": float(document.meta.get("language_confidence", math.nan)),
        **(scores or {}),
    }


def write_journal(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows, in their order, to a Parquet file."""
    import pyarrow as pa
    from pyarrow import parquet

    texts = dict.fromkeys(("id", "url", "host", "domain", "language", "reason", "excerpt", "pii"), pa.string())
    numbers = dict.fromkeys(("value", "threshold"), pa.float64())
    scores = dict.fromkeys((*SCORES, *FEATURES), pa.float32())
    schema = pa.schema(texts | {"characters": pa.int64()} | numbers | scores)
    with atomic_file(path) as temporary:
        table = pa.Table.from_pylist(rows, schema)
        parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_journal(path: Path, columns: list[str] | None = None) -> "pd.DataFrame":
    """The rows as a table. Raises `StageError` where there are none."""

    if not path.exists():
        raise StageError(f"{path} is missing.", "Only a curated corpus has a journal: maquette corpus source=warc ...")
    with reading(path):
        return open_parquet(path).read(columns).to_pandas()


def step_of(reason: str) -> str:
    """The step that a reason belongs to; empty for what is kept."""
    return reason.partition(":")[0]


def explain(folder: Path, name: str, config: CurationConfig) -> str:
    """The story of the document with an id or address, from the corpus in `folder`; several where an address was met
    more than once. Raises `StageError` where there is none."""
    journal = read_journal(folder / "curation" / "journal.parquet")
    rows = journal[(journal["id"] == name) | (journal["url"] == name)]
    if rows.empty:
        close = nearest(name, [*journal["id"].head(20_000), *journal["url"].head(20_000)])
        raise StageError(
            f"The corpus {folder.name} knows no document '{name}'.",
            f"Did you mean '{close}'?" if close else f"The ids are in {folder / 'curation' / 'journal.parquet'}.",
        )
    return "\n\n".join(_story(row, journal, config) for _, row in rows.iterrows())


def _story(row: "pd.Series", journal: "pd.DataFrame", config: CurationConfig) -> str:
    import pandas as pd

    lines = [f"{row['id']}  {row['url']}"]
    if row["language"]:
        lines.append(f"  language     {row['language']} ({row['language_confidence']:.3f})")
    if row["characters"]:
        lines.append(f"  text         {row['characters']:,} characters")
    if pd.notna(row["words"]):
        for rule in rules(config):
            value = float(row[rule.feature])
            sign = ">=" if rule.at_least else "<="
            lines.append(
                f"  {'BROKEN' if rule.breaks({rule.feature: value}) else 'passed'}       {rule.name}: {value:.4g} "
                f"({sign} {rule.threshold:g})"
            )
    if row["pii"] not in ("", "{}"):
        counts = ", ".join(
            f"{count} {kind}" for kind, count in parse_json(row["pii"], "the journal, column pii").items()
        )
        lines.append(f"  replaced     {counts}")
    lines += [
        f"  {label:<12} {row[name]:.4g}"
        for label, name in (("surprise", "surprise"), ("unsafe", "unsafe"), ("quality", "quality"))
        if not math.isnan(float(row[name]))
    ]
    if pd.notna(row["domain_confidence"]):
        lines.append(f"  domain       {row['domain']} ({row['domain_confidence']:.3f})")
    if row["cluster_size"] > 1:
        first = journal[journal["id"] == row["cluster"]].iloc[0]
        which = "the first" if row["cluster"] == row["id"] else f"the first is {first['id']}  {first['url']}"
        lines.append(f"  cluster      {row['cluster_size']} pages that are almost the same; {which}")
    if row["reason"]:
        measured = "" if pd.isna(row["value"]) else f" ({row['value']:.4g})"
        lines.append(f"  rejected     at the step '{step_of(row['reason'])}': {row['reason']}{measured}")
    else:
        share = row["kept_characters"] / max(row["characters"], 1)
        lines.append(f"  kept         {row['kept_characters']:,} characters ({share:.0%}), in {row['split']}")
    lines.append("  begins       " + " ".join(str(row["excerpt"]).split())[:160])
    return "\n".join(lines)
