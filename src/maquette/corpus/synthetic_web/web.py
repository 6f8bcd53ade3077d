"""The synthetic web as files: archives with good pages and injected faults, the truth about each, labelled examples;
and how well a curation does on it: precision and recall for each injected fault.

The same packages in the same versions give the same bytes.
"""

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maquette.artifacts.files import atomic_file, write_text
from maquette.artifacts.reading import reading
from maquette.corpus.curation.journal import step_of
from maquette.corpus.document import Document, write_documents
from maquette.corpus.pipeline import CLEAN
from maquette.corpus.sources.installed import PACKAGES
from maquette.corpus.synthetic_web.faults import FAULTS, Fault, inject
from maquette.corpus.synthetic_web.pages import (
    STYLES,
    GoodPages,
    Site,
    SyntheticPage,
    Text,
    is_prose,
    make_site,
    read_texts,
    render,
)
from maquette.corpus.workers import Workers

GOOD_PAGES = 1500
VERSION = 3
"""Of what is made: webs of other versions are left where they are, and another one is made."""
_PAGES_OF_A_HOST = 25
_ARCHIVES = 4
_CITED = 0.12  # of the good pages: those that the encyclopaedia cites
_CITATIONS = 6  # on one of its pages
_GENERAL = ("reference", "readme", "legal")  # domains whose pages tell of a subject as a whole

ENCYCLOPAEDIA = "encyclopaedia.example"
_NAMES = ("orchard", "lantern", "harbour", "meadow", "copper", "willow", "granite", "saffron", "timber", "amber")


def make_web(
    folder: Path, workers: Workers, good_pages: int = GOOD_PAGES, packages: tuple[str, ...] = PACKAGES, seed: int = 0
) -> dict[str, Any]:
    """Writes `crawl-*.warc*`, `truth.jsonl`, `examples.parquet`, and `clean.parquet` with prose that is on no page;
    returns what was made."""
    numbers = random.Random(seed)
    extra = sum(fault.share for fault in FAULTS if fault.keep) + _CITED / _CITATIONS  # of texts that stand nowhere else
    texts, examples = read_texts(workers, int(good_pages * (1 + extra)) + 20, packages)
    good_pages = min(good_pages, int(len(texts) / (1 + extra)))
    spare = iter(texts[good_pages:])
    sites = [
        make_site(f"{_NAMES[number % len(_NAMES)]}-{number}.example", STYLES[number % len(STYLES)], numbers)
        for number in range(max(good_pages // _PAGES_OF_A_HOST, 4))
    ]
    pages = list(_good(texts[:good_pages], sites, numbers))
    pages += _encyclopaedia(pages, spare, numbers)
    good = GoodPages(list(pages), sites, spare, numbers)
    for fault in FAULTS:
        pages += inject(fault, max(round(fault.share * good_pages), 1), good)
    pages.sort(key=lambda page: (page.place, page.url))
    truth = _write(folder, pages)
    write_text(folder / "truth.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in truth))
    labelled = [
        Document(f"{text.domain}/{number}", "\n\n".join(text.paragraphs), None, text.domain)
        for number, text in enumerate(examples)
    ]
    labelled.sort(key=lambda document: document.domain)
    with atomic_file(folder / "examples.parquet") as temporary:
        write_documents(temporary, labelled, checksums=False)
    clean = [
        Document(f"{CLEAN}/{number}", "\n\n".join(text.paragraphs), None, CLEAN)
        for number, text in enumerate(examples) if is_prose(text)
    ]  # fmt: skip
    with atomic_file(folder / f"{CLEAN}.parquet") as temporary:
        write_documents(temporary, clean, checksums=False)
    counts = {fault.name: sum(row["fault"] == fault.name for row in truth) for fault in FAULTS}
    return {
        "pages": len(truth),
        "good": sum(row["fault"] == "" for row in truth),
        "hosts": len(sites),
        "faults": counts,
    }


def _good(texts: Sequence[Text], sites: Sequence[Site], numbers: random.Random) -> Iterator[SyntheticPage]:
    for number, text in enumerate(texts):
        site = sites[number % len(sites)]
        body = render(site, text).encode()
        yield SyntheticPage(
            numbers.random() * 0.95, f"http://{site.host}/{number}", body, text=text, boilerplate=site.boilerplate
        )


def _encyclopaedia(good: list[SyntheticPage], spare: Iterator[Text], numbers: random.Random) -> list[SyntheticPage]:
    """Pages of an encyclopaedia, each of which cites others; see `_worth_citing`."""
    cited = _worth_citing(good, max(int(_CITED * len(good)), 30), numbers)
    numbers.shuffle(cited)
    site = make_site(ENCYCLOPAEDIA, "semantic", numbers)
    made = []
    for number, first in enumerate(range(0, len(cited), _CITATIONS)):
        text = next(spare, None)
        if text is not None:
            body = render(site, text, [page.url for page in cited[first : first + _CITATIONS]]).encode()
            made.append(SyntheticPage(numbers.random(), f"http://{ENCYCLOPAEDIA}/entry/{number}", body, text=text,
                             boilerplate=site.boilerplate))  # fmt: skip
    return made


def _worth_citing(good: list[SyntheticPage], count: int, numbers: random.Random) -> list[SyntheticPage]:
    """Of `count` pages as many as there are that tell of a subject as a whole (a language, a project, a licence), and
    for the rest some of those that tell most of one function or class: not what one would find again by its words
    alone, as an editor's choice never is."""
    general = [page for page in good if page.text is not None and page.text.domain in _GENERAL]
    particular = [page for page in good if page.text is not None and page.text.domain not in _GENERAL]
    cited = numbers.sample(general, min(count, len(general)))
    particular.sort(key=lambda page: -len(page.body))
    longer = particular[: max(len(particular) // 4, 1)]
    return cited + numbers.sample(longer, min(count - len(cited), len(longer)))


def _write(folder: Path, pages: Sequence[SyntheticPage]) -> list[dict[str, Any]]:
    """Writes the archives (three gzip, one plain), the last record of the first one cut short."""
    truth: list[dict[str, Any]] = []
    size = -(-len(pages) // _ARCHIVES)
    for number, first in enumerate(range(0, len(pages), size)):
        group = list(pages[first : first + size])
        if number == 0:
            _move_single_last(group, pages)
        name = f"crawl-{number:02d}.warc{'' if number == _ARCHIVES - 1 else '.gz'}"
        about = _record("warcinfo", "", b"software: maquette\r\n", "application/warc-fields")
        pieces = [_packed(about, name)]
        place = len(pieces[0])
        for count, page in enumerate(group):
            record = _response(page)
            packed = _packed(record, name)
            if page.record:
                packed = _damaged(packed, page.record, name, record)
            truth.append(_truth(f"{name}:{place}", page))
            if number == 0 and count == len(group) - 1:
                packed = packed[: len(packed) // 2]
                truth[-1] |= {"fault": "broken record", "keep": False}
            pieces.append(packed)
            place += len(packed)
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(b"".join(pieces))
    return truth


def _move_single_last(group: list[SyntheticPage], pages: Sequence[SyntheticPage]) -> None:
    """Ends the group with a good page that no other is a copy of: cut short, nothing else takes its place."""
    titles = Counter(page.text.title for page in pages if page.text is not None)
    for place, page in reversed(list(enumerate(group))):
        if not page.fault and page.text is not None and titles[page.text.title] == 1:
            group.append(group.pop(place))
            return


def _truth(identity: str, page: SyntheticPage) -> dict[str, Any]:
    fault = next((fault for fault in FAULTS if fault.name == page.fault), None)
    return {
        "id": identity,
        "url": page.url,
        "fault": page.fault,
        "keep": fault is None or fault.keep,
        "domain": page.text.domain if page.text else "",
        "pii": [list(pair) for pair in page.pii],
        "decoys": [list(pair) for pair in page.decoys],
        "boilerplate": list(page.boilerplate),
        "paragraphs": list(page.text.paragraphs) if page.text and (fault is None or fault.keep) else [],
    }


def _response(page: SyntheticPage) -> bytes:
    head = f"HTTP/1.1 {page.status}\r\nContent-Type: {page.content_type}\r\n{page.headers}"
    content = f"{head}Content-Length: {len(page.body)}\r\n\r\n".encode() + page.body
    return _record("response", page.url, content, "application/http; msgtype=response")


def _record(kind: str, url: str, content: bytes, content_type: str) -> bytes:
    target = f"WARC-Target-URI: {url}\r\n" if url else ""
    head = (
        f"WARC/1.1\r\nWARC-Type: {kind}\r\n{target}WARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content + b"\r\n\r\n"


def _packed(record: bytes, name: str) -> bytes:
    return gzip.compress(record, 6, mtime=0) if name.endswith(".gz") else record


def _damaged(packed: bytes, how: str, name: str, record: bytes) -> bytes:
    """The record with bytes overwritten, or with a length that reaches into the next record."""
    if how == "length":
        head, _, rest = record.partition(b"Content-Length: ")
        length, _, tail = rest.partition(b"\r\n")
        return _packed(head + b"Content-Length: %d\r\n" % (int(length) + 700) + tail, name)
    middle = len(packed) // 2
    if not name.endswith(".gz"):
        return record.replace(b"Content-Length", b"Content-Lemgth", 1)
    return packed[:middle] + bytes(64) + packed[middle + 64 :]


def read_truth(folder: Path) -> list[dict[str, Any]]:
    """The truth about a synthetic web."""
    path = folder / "truth.jsonl"
    with reading(path):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measure(journal: pd.DataFrame, truth: list[dict[str, Any]], curated: Iterable[Document]) -> list[dict[str, Any]]:
    """A row for the good pages, for each fault, and for what is to be found inside pages.

    `curated` are the documents as the filters left them, before repetition was taken out. `recall`: of the injected
    pages those that got what they deserve; `precision`: of the pages that the fault's own rules reject, those that
    are to be rejected, for whatever fault.
    """
    known = {row["id"]: row for row in truth}
    reason = dict(zip(journal["id"], journal["reason"], strict=True))
    rows = [_good_row(known, reason), *(_row(fault, known, reason) for fault in FAULTS)]
    return rows + _inside(known, curated)


def _good_row(known: dict[str, dict[str, Any]], reason: dict[str, str]) -> dict[str, Any]:
    good = [name for name, row in known.items() if row["fault"] == ""]
    passed = sum(reason.get(name) == "" for name in good)
    everything = [name for name, why in reason.items() if why == "" and name in known]
    deserving = sum(known[name]["keep"] for name in everything)
    recall, precision = passed / max(len(good), 1), deserving / max(len(everything), 1)
    return _line("good pages", True, len(good), recall, precision, _by(good, reason))


def _row(fault: Fault, known: dict[str, dict[str, Any]], reason: dict[str, str]) -> dict[str, Any]:
    injected = [name for name, row in known.items() if row["fault"] == fault.name]
    right = sum((reason.get(name, "lost") == "") == fault.keep for name in injected)
    precision = None
    if fault.steps:
        rejected = [
            name for name, why in reason.items() if why and {why, step_of(why)} & {*fault.steps} and name in known
        ]
        precision = sum(not known[name]["keep"] for name in rejected) / len(rejected) if rejected else None
    return _line(fault.name, fault.keep, len(injected), right / max(len(injected), 1), precision, _by(injected, reason))


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
