"""How well a curation does on the synthetic web: precision and recall for each injected fault."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from maquette.corpus.curation.journal import step_of
from maquette.corpus.document import Document
from maquette.corpus.synthetic_web.faults import FAULTS, Fault


def measure(journal: pd.DataFrame, truth: list[dict[str, Any]], curated: Iterable[Document]) -> list[dict[str, Any]]:
    """A row for the good pages, for each fault, and for what is to be found inside pages.

    `curated` are the documents as the filters left them, before repetition was taken out. `recall`: of the injected
    pages those that got what they deserve; `precision`: of the pages that the fault's own rules reject, those that
    are to be rejected, for whatever fault.
    """
    known = {row["id"]: row for row in truth}
    reason = dict(zip(journal["id"], journal["reason"], strict=True))
    rows = [_good(known, reason), *(_row(fault, known, reason) for fault in FAULTS)]
    return rows + _inside(known, curated)


def _good(known: dict[str, dict[str, Any]], reason: dict[str, str]) -> dict[str, Any]:
    good = [name for name, row in known.items() if row["fault"] == ""]
    passed = sum(reason.get(name) == "" for name in good)
    everything = [name for name, why in reason.items() if why == "" and name in known]
    deserving = sum(known[name]["keep"] for name in everything)
    return _line(
        "good pages",
        True,
        len(good),
        passed / max(len(good), 1),
        deserving / max(len(everything), 1),
        _by(good, reason),
    )


def _row(fault: Fault, known: dict[str, dict[str, Any]], reason: dict[str, str]) -> dict[str, Any]:
    injected = [name for name, row in known.items() if row["fault"] == fault.name]
    right = sum((reason.get(name, "lost") == "") == fault.keep for name in injected)
    precision = None
    if fault.steps:
        rejected = [name for name, why in reason.items() if _is_of(why, fault.steps) and name in known]
        precision = sum(not known[name]["keep"] for name in rejected) / len(rejected) if rejected else None
    return _line(fault.name, fault.keep, len(injected), right / max(len(injected), 1), precision, _by(injected, reason))


def _is_of(reason: str, steps: tuple[str, ...]) -> bool:
    return reason != "" and (reason in steps or step_of(reason) in steps)


def _by(names: list[str], reason: dict[str, str]) -> str:
    """The steps that rejected some, with counts, most frequent first."""
    counts = pd.Series([step_of(reason.get(name, "lost")) for name in names], dtype=object).value_counts()
    return ", ".join(f"{step} {count}" for step, count in counts.items() if step)


def _line(kind: str, keep: bool, injected: int, recall: float, precision: float | None, caught: str) -> dict[str, Any]:
    return {
        "kind": kind, "to be kept": "yes" if keep else "no", "injected": injected, "recall": round(recall, 4),
        "precision": None if precision is None else round(precision, 4), "caught by": caught,
    }  # fmt: skip


def _inside(known: dict[str, dict[str, Any]], curated: Iterable[Document]) -> list[dict[str, Any]]:
    """Personal data, menus and footers, and the main text, within the pages that are kept."""
    pii = [0, 0, 0, 0]  # injected, replaced, decoys, replaced
    boilerplate = [0, 0]  # injected, gone
    paragraphs = [0, 0]  # injected, found
    for document in curated:
        row = known.get(document.id)
        if row is None or not row["keep"]:
            continue
        text = " ".join(document.text.split())
        lines = {line.strip() for line in document.text.split("\n")}
        pii[0] += len(row["pii"])
        pii[1] += sum(value not in text for _, value in row["pii"])
        pii[2] += len(row["decoys"])
        pii[3] += sum(value not in text for _, value in row["decoys"])
        boilerplate[0] += len(row["boilerplate"])
        boilerplate[1] += sum(line not in lines for line in row["boilerplate"])
        for paragraph in row["paragraphs"]:
            if len(paragraph) > 60 and not row["pii"]:
                paragraphs[0] += 1
                paragraphs[1] += " ".join(paragraph.split())[:60] in text
    replaced = pii[1] + pii[3]
    return [
        _line("personal data, replaced", False, pii[0], pii[1] / max(pii[0], 1),
              pii[1] / replaced if replaced else None, "replaced"),
        _line("menus and footers, lines", False, boilerplate[0], boilerplate[1] / max(boilerplate[0], 1), None,
              "main content, repeated lines"),
        _line("main text, paragraphs", True, paragraphs[0], paragraphs[1] / max(paragraphs[0], 1), None, ""),
    ]  # fmt: skip
