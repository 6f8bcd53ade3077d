"""What a curation leaves: the finished journal, the funnel, histograms with their thresholds, and a page to browse."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maquette.artifacts.files import atomic_file, write_json
from maquette.artifacts.reading import parse_json
from maquette.corpus.config import CurationConfig
from maquette.corpus.curation.journal import STEPS, step_of
from maquette.corpus.curation.rules import Rule, rules
from maquette.corpus.document import SPLITS, read_documents
from maquette.corpus.near_duplicates import s_curve
from maquette.reports import write_page
from maquette.reports.figures import COLORS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAMPLES = 6  # of each rule
_PART = re.compile(r"#\d+$")
_HISTOGRAMS = ("word_length", "alphabetic_words", "duplicate_5_grams", "punctuated_lines", "surprise", "quality")


def finish_journal(journal: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The journal with the split and the characters of what the corpus in `folder` keeps of each document; where that
    is nothing, the reason is repetition."""
    in_corpus = pd.DataFrame(
        [(_PART.sub("", document.id), split, len(document.text))
         for split in SPLITS for document in read_documents(folder, split)],
        columns=["id", "split", "characters"],
    ).groupby("id")  # fmt: skip
    journal = journal.copy()
    journal["split"] = journal["id"].map(in_corpus["split"].first()).fillna("")
    journal["kept_characters"] = journal["id"].map(in_corpus["characters"].sum()).fillna(0).astype("int64")
    gone = (journal["reason"] == "") & (journal["kept_characters"] == 0)
    journal.loc[gone, "reason"] = "repetition: all of it stands elsewhere"
    return journal


def funnel(journal: pd.DataFrame) -> list[dict[str, Any]]:
    """From every record to what is kept, step by step in the order of `STEPS`: the documents and the characters of
    extracted text that are left after a `step`."""
    gone = journal["characters"].groupby(journal["reason"].map(step_of)).agg(["size", "sum"])
    gone = gone.reindex(["records", *STEPS], fill_value=0).cumsum()
    left = {"documents": len(journal) - gone["size"], "characters": int(journal["characters"].sum()) - gone["sum"]}
    return [{"step": step} | {name: int(values[step]) for name, values in left.items()} for step in gone.index]


def write_curation_report(
    folder: Path, journal: pd.DataFrame, config: CurationConfig, facts: dict[str, Any],
    truth: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Writes `curation/journal.parquet`, `curation/report.json`, `figures/funnel.*`, `figures/features.*` and
    `curation.html` into a corpus's folder; returns the manifest's part. `truth` has a row for each kind of fault."""
    stages = funnel(journal)
    reasons = journal["reason"][journal["reason"] != ""].value_counts().sort_index().to_dict()
    report = {
        **facts,
        "funnel": stages,
        "reasons": {str(reason): int(count) for reason, count in reasons.items()},
        "pii": _pii_counts(journal),
        "near_duplicates": {
            "bands": config.near_duplicates.bands,
            "rows": config.near_duplicates.rows,
            "joined_at_similarity": {
                f"{similarity:.1f}": round(s_curve(similarity, config.near_duplicates), 4)
                for similarity in (0.5, 0.6, 0.7, 0.8, 0.9)
            },
            "largest_cluster": int(journal["cluster_size"].max()) if len(journal) else 0,
        },
    }
    if truth is not None:
        report["truth"] = truth
    with atomic_file(folder / "curation" / "journal.parquet") as temporary:
        journal.to_parquet(temporary, compression="zstd", index=False)
    write_json(folder / "curation" / "report.json", report)
    chosen = rules(config)
    figures = {"funnel": funnel_figure(stages), "features": features_figure(journal, chosen)}
    if curve := facts.get("corpus_statistics", {}).get("quality", {}).get("curve"):
        figures["quality"] = curve_figure(curve)
    write_page(
        folder, "curation.html.j2", {"truth": None, **report, **_shown(journal, chosen)}, figures, "curation.html"
    )
    return report


def _pii_counts(journal: pd.DataFrame) -> dict[str, int]:
    counts = Counter[str]()
    for text in journal["pii"][(journal["reason"] == "") & (journal["pii"] != "{}")]:
        counts.update(parse_json(text, "the journal, column pii"))
    return dict(sorted(counts.items()))


def funnel_figure(stages: Sequence[Mapping[str, Any]]) -> "Figure":
    """Documents and characters that each step leaves."""
    canvas, (left, right) = new_figure(1, 2, width=6.2, height=0.9 + 0.34 * len(stages))
    places = range(len(stages))
    for axes, name, values in (
        (left, "documents", [stage["documents"] for stage in stages]),
        (right, "million characters", [stage["characters"] / 1e6 for stage in stages]),
    ):
        axes.barh(places, values, color=COLORS[0], height=0.7)
        largest = max([*values, 1e-9])
        for place, value in enumerate(values):
            lost = values[place - 1] - value if place else 0
            digits = 0 if name == "documents" else 2
            label = f"{value:,.{digits}f}" + (f"  (−{lost:,.{digits}f})" if round(lost, digits) > 0 else "")
            axes.text(value + largest * 0.01, place, label, va="center", fontsize=8)
        axes.set_yticks(places, [stage["step"] for stage in stages])
        axes.invert_yaxis()
        axes.set_xlim(0, largest * 1.28)
        axes.set_xlabel(f"{name} left after the step")
        axes.set_title("in brackets: what the step takes", fontsize=9)
        axes.grid(axis="y", visible=False)
    return canvas


def features_figure(journal: pd.DataFrame, chosen: Sequence[Rule]) -> "Figure":
    """Histograms of some features, of what is kept and what is not, with the rules' thresholds."""
    canvas, panels = new_figure(2, 3, width=4.0, height=2.7)
    passed = (journal["reason"] == "").to_numpy()
    for axes, name in zip(panels.flat, _HISTOGRAMS, strict=True):
        values = journal[name].to_numpy(np.float64)
        known = np.isfinite(values)
        axes.set_title(name.replace("_", " "))
        axes.set_ylabel("documents")
        if not known.any():
            axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
            continue
        low, high = np.quantile(values[known], [0.0, 0.995])
        edges = np.linspace(low, max(high, low + 1e-6), 41)
        shown = np.clip(values, edges[0], edges[-1])
        axes.hist(shown[known & passed], edges, color=COLORS[0], alpha=0.75, label="kept")
        axes.hist(shown[known & ~passed], edges, color=COLORS[1], alpha=0.6, label="rejected")
        for rule in chosen:
            if rule.feature == name and edges[0] <= rule.threshold <= edges[-1]:
                axes.axvline(rule.threshold, color="black", linestyle="--", linewidth=1)
        axes.set_yscale("symlog")
        axes.legend(fontsize=7)
    return canvas


def curve_figure(curve: dict[str, Any]) -> "Figure":
    """Precision against recall of the quality model on held-out labels."""
    canvas, axes = new_figure(width=5.0, height=3.6)
    axes.plot(curve["recall"], curve["precision"], color=COLORS[0], drawstyle="steps-post")
    axes.axhline(curve["chance"], color="0.5", linestyle="--", linewidth=1)
    axes.set_xlabel("recall of reference-like pages")
    axes.set_ylabel("precision")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_title(f"average precision {curve['average_precision']:.2f}, by chance {curve['chance']:.2f}")
    return canvas


def _shown(journal: pd.DataFrame, chosen: Sequence[Rule]) -> dict[str, Any]:
    """What the page shows of the journal: what is kept, rows of domains and reasons, and samples of each reason."""
    left = journal[journal["reason"] == ""]
    reasons = list(journal[journal["reason"] != ""].groupby("reason"))
    by_name = {rule.name: rule for rule in chosen}
    return {
        "kept": {"documents": len(left), "characters": int(left["kept_characters"].sum())},
        "domain_rows": _domain_rows(journal[journal["words"].notna()]),
        "reason_rows": [
            [reason, len(rows), round(rows["characters"].sum() / 1e6, 3), round(100 * len(rows) / len(journal), 2)]
            for reason, rows in reasons
        ],
        "samples": [(reason, len(rows), _samples(rows, left, by_name.get(str(reason)))) for reason, rows in reasons],
    }


def _samples(rows: pd.DataFrame, left: pd.DataFrame, rule: Rule | None) -> list[tuple[str, str, str]]:
    """Some documents that a reason rejected, and by a rule two that it just let pass."""
    shown = [(row, _caption(row, "rejected")) for _, row in rows.head(_SAMPLES).iterrows()]
    if rule is not None and len(left):
        near = (left[rule.feature] - rule.threshold).abs().sort_values(kind="stable").index[:2]
        shown += [(row, _caption(row, "kept", rule)) for _, row in left.loc[near].iterrows()]
    return [("", str(row["excerpt"]) or "(no text)", caption) for row, caption in shown]


def _domain_rows(filtered: pd.DataFrame) -> list[list[Any]]:
    rows = []
    for name, group in filtered.groupby("domain"):
        left = group[group["reason"] == ""]
        medians = [_median(left[column]) for column in ("words", "quality", "surprise")]
        rows.append([name, len(group), len(left), round(left["kept_characters"].sum() / 1e6, 3), *medians])
    return rows


def _median(values: pd.Series) -> float | str:
    value = float(values.median()) if len(values) else math.nan
    return "" if math.isnan(value) else round(value, 3)


def _caption(row: pd.Series, word: str, rule: Rule | None = None) -> str:
    where = str(row["url"] or row["id"])[:90].replace("`", "'")
    if rule is not None:
        return f"**{word}**, {row[rule.feature]:.4g} (limit {rule.threshold:g}): `{where}`"
    limit = "" if pd.isna(row["threshold"]) else f" (limit {row['threshold']:g})"
    value = "" if pd.isna(row["value"]) else f", {row['value']:.4g}{limit}"
    return f"**{word}**{value}: `{where}`"
