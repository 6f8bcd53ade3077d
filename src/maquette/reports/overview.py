"""The pages of an outputs folder on one page: `maquette report`.

Nothing is listed by hand: each page says in its head what kind it is of and what it found (the blocks `kind` and
`summary` of its template), and a new kind of page is found like the rest.
"""

import datetime
import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maquette.artifacts.progress import say
from maquette.reports.pages import write_page

PAGE = "index.html"

SECTIONS = {
    "The whole": ("demo",),
    "Text": ("corpus", "curation", "tokenizer"),
    "Training": ("runs", "sweep", "profile"),
    "Scaling laws": ("fit", "predictions", "backtest", "experiment"),
    "Evaluation": ("leaderboard", "evaluation", "comparison", "ratings"),
    "Alignment": ("instructions", "alignment"),
}
"""What stands together, in the order of the pipeline; kinds that are not here come last."""
_OTHERS = "Others"
_SHOWN = 8
"""Newest pages of a section; the older ones are folded away."""

_WITHOUT_PAGES = {"mlartifacts", "mlruns", "checkpoints", "model", "hydra", "logs", "jobs", "figures", "site"}
"""Folders that hold no page of ours, or copies of them."""
_HEAD = 16_384  # bytes; a page's kind and summary stand before its style sheet
_META = re.compile(r'<meta name="(?P<name>[\w-]+)" content="(?P<content>[^"]*)">')
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


@dataclass(frozen=True)
class ListedPage:
    """A page with its `path` below the outputs folder, what it says in a line, and when it was written (UTC)."""

    path: str
    kind: str
    title: str
    summary: str
    written: datetime.datetime

    @property
    def folder(self) -> str:
        """The name of its folder, which tells pages of one title apart."""
        return PurePosixPath(self.path).parent.name

    @property
    def section(self) -> str:
        return next((name for name, kinds in SECTIONS.items() if self.kind in kinds), _OTHERS)


def find_pages(outputs: Path | str) -> list[ListedPage]:
    """The pages below `outputs`, newest first, without the overview itself."""
    outputs = Path(outputs)
    pages: list[ListedPage] = []
    for folder, below, files in os.walk(outputs):
        below[:] = [name for name in below if name not in _WITHOUT_PAGES and not name.startswith(".")]
        paths = [Path(folder) / name for name in files if name.endswith(".html") and not name.startswith(".")]
        pages += [page for path in paths if path != outputs / PAGE and (page := _read(path, outputs)) is not None]
    return sorted(pages, key=lambda page: (page.written, page.path), reverse=True)


def _read(path: Path, outputs: Path) -> ListedPage | None:
    """What a page says of itself; None for files that are no pages of ours, or were removed just now."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
        written = path.stat().st_mtime
    except OSError:
        return None
    known = {match["name"]: _line(match["content"]) for match in _META.finditer(head)}
    title = _TITLE.search(head)
    if known.get("generator") != "maquette" or title is None:
        return None
    return ListedPage(
        path.relative_to(outputs).as_posix(), known.get("maquette-kind", "page"), _line(title[1]),
        known.get("description", ""), datetime.datetime.fromtimestamp(int(written), datetime.UTC),
    )  # fmt: skip


def _line(escaped: str) -> str:
    return " ".join(html.unescape(escaped).split())


def write_overview(outputs: Path | str, pages: Sequence[ListedPage]) -> Path:
    """Writes `outputs`/index.html with a link to each of the pages, section by section."""
    outputs = Path(outputs)
    sections = {
        name: (own[:_SHOWN], own[_SHOWN:])
        for name in (*SECTIONS, _OTHERS)
        if (own := [page for page in pages if page.section == name])
    }
    return write_page(
        outputs, "overview.html.j2", {"folder": outputs.absolute().name, "pages": len(pages), "sections": sections}
    )


def tell_overview(page: Path, pages: Sequence[ListedPage]) -> None:
    """Says how many pages there are, and where they are listed."""
    say(f"{len(pages)} page{'s' if len(pages) > 1 else ''}. Open {page.absolute().as_uri()}")
