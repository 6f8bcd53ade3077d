"""One document's story: where it came from, what was measured, what became of it and why."""

import json
import math
from pathlib import Path

import pandas as pd

from maquette.artifacts.errors import StageError
from maquette.artifacts.settings import nearest
from maquette.corpus.curation.config import CurationConfig
from maquette.corpus.curation.journal import read_journal, step_of
from maquette.corpus.curation.rules import rules


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


def _story(row: pd.Series, journal: pd.DataFrame, config: CurationConfig) -> str:
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
    if row["private"] not in ("", "{}"):
        counts = ", ".join(f"{count} {kind}" for kind, count in json.loads(row["private"]).items())
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
