"""The data card of a corpus: sources, counts, and what licences its text is under (corpus/licenses.py)."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maquette.artifacts.files import write_text
from maquette.corpus.document import SPLITS, read_documents
from maquette.corpus.licenses import CLASSES, license_class, license_of
from maquette.corpus.report import source_in_words
from maquette.reports import render

FILE = "data_card.md"


def license_counts(folder: Path, packages: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """By licence, the one with most text first: `documents` and `bytes` of the training text, and `held_out` documents.
    `packages`: each package's licence."""
    documents, sizes, held_out = Counter[str](), Counter[str](), Counter[str]()
    for split in SPLITS:
        for document in read_documents(folder, split):
            expression = license_of(document, packages)
            if split == "train":
                documents[expression] += 1
                sizes[expression] += len(document.text.encode())
            else:
                held_out[expression] += 1
    order = sorted({*documents, *held_out}, key=lambda one: (-sizes[one], one))
    return {one: {"documents": documents[one], "bytes": sizes[one], "held_out": held_out[one]} for one in order}


def write_data_card(folder: Path, known: Mapping[str, Any], packages: Mapping[str, str], allowed: list[str]) -> None:
    """Writes `data_card.md` into a corpus; `known`: its facts with `licenses`, and `unlicensed`, what was left out."""
    licenses = known["licenses"]
    total = max(1, sum(counts["bytes"] for counts in licenses.values()))
    classes = {
        name: sum(counts["bytes"] for one, counts in licenses.items() if license_class(one) == name) / total
        for name in CLASSES
    }
    shown = {
        **known,
        "source": source_in_words(known["source"]),
        "splits": SPLITS,
        "classes": {name: share for name, share in classes.items() if share},
        "total": total,
        "packages": sorted(packages.items()),
        "allowed": allowed,
    }
    write_text(folder / FILE, render("data_card.md.j2", shown))
