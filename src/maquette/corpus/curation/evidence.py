"""Evidence of a curation: the finished journal, the funnel, histograms with their thresholds, and a page to browse."""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maquette.artifacts.files import write_json
from maquette.artifacts.page import Fact, Page, Picture
from maquette.corpus.curation.config import CurationConfig
from maquette.corpus.curation.journal import STEPS, step_of
from maquette.corpus.curation.near_duplicates import s_curve
from maquette.corpus.curation.rules import Rule, rules
from maquette.corpus.curation.selection import write_selection
from maquette.corpus.document import SPLITS, read_documents
from maquette.reports.figures import COLORS, new_figure, save_figure

_SAMPLES = 6  # of each rule
_PART = re.compile(r"#\d+$")
_HISTOGRAMS = ("word_length", "alphabetic_words", "duplicate_5_grams", "punctuated_lines", "surprise", "quality")


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """What is left after a step, and what it took: documents and characters of extracted text."""

    step: str
    documents: int
    characters: int


def finish_journal(journal: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The journal with the split and the characters of what the corpus in `folder` keeps of each document; where that
    is nothing, the reason is repetition."""
    characters: dict[str, int] = {}
    split_of: dict[str, str] = {}
    for split in SPLITS:
        for document in read_documents(folder, split):
            name = _PART.sub("", document.id)
            characters[name] = characters.get(name, 0) + len(document.text)
            split_of.setdefault(name, split)
    journal = journal.copy()
    journal["split"] = journal["id"].map(split_of).fillna("")
    journal["kept_characters"] = journal["id"].map(characters).fillna(0).astype("int64")
    gone = (journal["reason"] == "") & (journal["kept_characters"] == 0)
    journal.loc[gone, "reason"] = "repetition: all of it stands elsewhere"
    return journal


def funnel(journal: pd.DataFrame) -> list[Stage]:
    """From every record to what is kept, step by step, in the order of `STEPS`."""
    steps = journal["reason"].map(step_of)
    documents, characters = len(journal), int(journal["characters"].sum())
    stages = [Stage("records", documents, characters)]
    for step in STEPS:
        gone = steps == step
        documents -= int(gone.sum())
        characters -= int(journal["characters"][gone].sum())
        stages.append(Stage(step, documents, characters))
    return stages


def write_evidence(
    folder: Path, journal: pd.DataFrame, config: CurationConfig, facts: dict[str, Any],
    truth: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Writes `curation/journal.parquet`, `curation/report.json`, `figures/funnel.*`, `figures/features.*` and
    `curation.html` into a corpus's folder; returns the manifest's part. `truth` has a row for each kind of fault."""
    stages = funnel(journal)
    reasons = journal["reason"][journal["reason"] != ""].value_counts().sort_index().to_dict()
    report = {
        **facts,
        "funnel": [dataclasses.asdict(stage) for stage in stages],
        "reasons": {str(reason): int(count) for reason, count in reasons.items()},
        "private": _private_counts(journal),
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
    write_selection(folder / "curation" / "journal.parquet", journal)
    write_json(folder / "curation" / "report.json", report)
    pictures = [
        funnel_figure(stages, folder / "figures" / "funnel"),
        features_figure(journal, rules(config), folder / "figures" / "features"),
    ]
    curve = facts.get("context", {}).get("quality", {}).get("curve")
    if curve:
        pictures.append(curve_figure(curve, folder / "figures" / "quality"))
    _page(journal, stages, config, report, pictures).write(folder / "curation.html")
    return report


def _private_counts(journal: pd.DataFrame) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in journal["private"][(journal["reason"] == "") & (journal["private"] != "{}")]:
        for kind, count in json.loads(text).items():
            counts[kind] = counts.get(kind, 0) + int(count)
    return dict(sorted(counts.items()))


def funnel_figure(stages: Sequence[Stage], path: Path) -> Path:
    """Documents and characters that each step leaves."""
    canvas, (left, right) = new_figure(1, 2, width=6.2, height=0.9 + 0.34 * len(stages))
    places = range(len(stages))
    for axes, name, values in (
        (left, "documents", [stage.documents for stage in stages]),
        (right, "million characters", [stage.characters / 1e6 for stage in stages]),
    ):
        axes.barh(places, values, color=COLORS[0], height=0.7)
        largest = max([*values, 1e-9])
        for place, value in enumerate(values):
            lost = values[place - 1] - value if place else 0
            digits = 0 if name == "documents" else 2
            label = f"{value:,.{digits}f}" + (f"  (−{lost:,.{digits}f})" if round(lost, digits) > 0 else "")
            axes.text(value + largest * 0.01, place, label, va="center", fontsize=8)
        axes.set_yticks(places, [stage.step for stage in stages] if axes is left else [""] * len(stages))
        axes.invert_yaxis()
        axes.set_xlim(0, largest * 1.28)
        axes.set_xlabel(f"{name} left after the step")
        axes.grid(axis="y", visible=False)
    left.set_title("What each step leaves (in brackets: what it takes)")
    return save_figure(canvas, path)


def features_figure(journal: pd.DataFrame, chosen: Sequence[Rule], path: Path) -> Path:
    """Histograms of some features, of what is kept and what is not, with the rules' thresholds."""
    canvas, panels = new_figure(2, 3, width=4.0, height=2.7)
    kept = (journal["reason"] == "").to_numpy()
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
        axes.hist(shown[known & kept], edges, color=COLORS[0], alpha=0.75, label="kept")
        axes.hist(shown[known & ~kept], edges, color=COLORS[1], alpha=0.6, label="rejected")
        for rule in chosen:
            if rule.feature == name and edges[0] <= rule.threshold <= edges[-1]:
                axes.axvline(rule.threshold, color="black", linestyle="--", linewidth=1)
        axes.set_yscale("symlog")
    panels.flat[0].legend(fontsize=8)
    return save_figure(canvas, path)


def curve_figure(curve: dict[str, Any], path: Path) -> Path:
    """Precision against recall of the quality model on held-out labels."""
    canvas, axes = new_figure(width=5.0, height=3.6)
    axes.plot(curve["recall"], curve["precision"], color=COLORS[0], drawstyle="steps-post")
    axes.axhline(curve["chance"], color="0.5", linestyle="--", linewidth=1)
    axes.set_xlabel("recall of reference-like pages")
    axes.set_ylabel("precision")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_title(
        f"Quality model on held-out labels: average precision {curve['average_precision']:.2f}, "
        f"by chance {curve['chance']:.2f}", fontsize=9,
    )  # fmt: skip
    return save_figure(canvas, path)


def _page(
    journal: pd.DataFrame, stages: Sequence[Stage], config: CurationConfig, report: dict[str, Any],
    pictures: Sequence[Path],
) -> Page:  # fmt: skip
    kept = journal[journal["reason"] == ""]
    page = Page(
        "What was kept, and why",
        lead="Every record of the crawl, step by step; samples of what each rule rejects and just lets pass.",
        footer="One document’s story: `maquette corpus ... explain=<id or address>`. All: `curation/journal.parquet`.",
    )
    page.section("Funnel")
    page.facts(
        [
            Fact("records", f"{stages[0].documents:,}", f"{stages[0].characters / 1e6:,.1f} M characters of text"),
            Fact("kept", f"{len(kept):,}", f"{kept['kept_characters'].sum() / 1e6:,.1f} M characters"),
            Fact(
                "replaced private data", f"{sum(report['private'].values()):,}", ", ".join(report["private"]) or "none"
            ),
            Fact(
                "largest cluster", f"{report['near_duplicates']['largest_cluster']:,}", "pages that are almost the same"
            ),
        ]
    )
    page.pictures(Picture(pictures[0], "Documents and characters that each step leaves."))
    if report.get("truth"):
        _truth_section(page, report["truth"])
    page.section("Features")
    page.pictures(Picture(pictures[1], "Features of kept and rejected documents; dashed: thresholds."))
    if len(pictures) > 2:
        page.pictures(Picture(pictures[2], "Pages that encyclopaedias cite against random pages."))
    _domain_section(page, journal)
    page.section("Rules")
    page.table(
        ["reason", "documents", "characters (M)", "share of records (%)"],
        [
            [reason, len(rows), round(rows["characters"].sum() / 1e6, 3), round(100 * len(rows) / len(journal), 2)]
            for reason, rows in journal[journal["reason"] != ""].groupby("reason")
        ],
    )
    thresholds = {rule.name: rule for rule in rules(config)}
    for reason, rows in journal[journal["reason"] != ""].groupby("reason"):
        page.heading(f"{reason} ({len(rows):,})")
        samples = [("", _excerpt(row), _caption(row, "rejected")) for _, row in rows.head(_SAMPLES).iterrows()]
        if (rule := thresholds.get(str(reason))) is not None and len(kept):
            near = (kept[rule.feature] - rule.threshold).abs().sort_values(kind="stable").index[:2]
            samples += [("", _excerpt(row), _caption(row, "kept", rule)) for _, row in kept.loc[near].iterrows()]
        page.samples(samples)
    return page


def _truth_section(page: Page, truth: list[dict[str, Any]]) -> None:
    page.section("Truth")
    page.text(
        "What was planted is known. **Recall**: of the pages with a fault, those that are not kept (or those that are, "
        "where they are to be). **Precision**: of what the fault’s own rules reject, the share that has a fault."
    )
    columns = ["kind", "to be kept", "planted", "recall", "precision", "caught by"]
    page.table(columns, [[row[name] if row[name] is not None else "" for name in columns] for row in truth])


def _domain_section(page: Page, journal: pd.DataFrame) -> None:
    page.section("Domains")
    judged = journal[journal["words"].notna()]
    rows = []
    for name, group in judged.groupby("domain"):
        left = group[group["reason"] == ""]
        rows.append(
            [
                name, len(group), len(left), round(left["kept_characters"].sum() / 1e6, 3),
                _median(left["words"]), _median(left["quality"]), _median(left["surprise"]),
            ]
        )  # fmt: skip
    page.table(
        ["domain", "judged", "kept", "characters kept (M)", "median words", "median quality", "median nats per token"],
        rows,
    )


def _median(values: pd.Series) -> float | str:
    value = float(values.median()) if len(values) else math.nan
    return "" if math.isnan(value) else round(value, 3)


def _excerpt(row: pd.Series) -> str:
    return str(row["excerpt"]) or "(no text)"


def _caption(row: pd.Series, word: str, rule: Rule | None = None) -> str:
    where = str(row["url"] or row["id"])[:90].replace("`", "'")
    if rule is not None:
        return f"**{word}**, {row[rule.feature]:.4g} (limit {rule.threshold:g}): `{where}`"
    limit = "" if pd.isna(row["threshold"]) else f" (limit {row['threshold']:g})"
    value = "" if pd.isna(row["value"]) else f", {row['value']:.4g}{limit}"
    return f"**{word}**{value}: `{where}`"
