"""Real text in the size of web pages, from the `installed` source; and the little that it does not have."""

import dataclasses
import functools
import hashlib
import json
import random
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.installed import Installed
from maquette.corpus.sources.modules import PACKAGES
from maquette.corpus.workers import Workers

_SHORTEST, _LONGEST = 900, 4000  # characters of a page
_MOST_SEEN = 0.3  # of its paragraphs: a text that repeats others so much is no page of its own
_PROSE = ("docs", "readme", "reference", "legal")
_LEAST_PROSE = 0.6  # of a page's characters: in paragraphs that read like sentences, not lists, tables or signatures
_CODE_EVERY = 6  # pages: one in so many shows a piece of code
_SENTENCES = re.compile(r"(?s)[A-Z`\"(].*[a-z] [a-z].*[.:!?)\"]\Z")


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A page's title and paragraphs; a paragraph that begins with white space, or has an indented line, is set as it
    stands."""

    title: str
    paragraphs: tuple[str, ...]
    domain: str


def read_texts(workers: Workers, count: int, packages: tuple[str, ...] = PACKAGES) -> tuple[list[Text], list[Text]]:
    """`count` texts (or as many as there are) for pages, and as many of each domain, at most 200, as labelled examples.

    No paragraph of some length stands in two of them.
    """
    source = Installed(
        SourceConfig(limit=max(6 * count, 100)), packages, standard_library=len(packages) == len(PACKAGES)
    )
    seen: set[bytes] = set()
    by_domain: dict[str, list[Text]] = {}
    for document in source.documents(workers):
        for text in _cut(document):
            marks = [_mark(paragraph) for paragraph in text.paragraphs if len(paragraph) > 60]
            if sum(mark in seen for mark in marks) > _MOST_SEEN * len(marks):
                continue
            seen.update(marks)
            by_domain.setdefault(text.domain, []).append(text)
    examples: list[Text] = []
    pages: list[Text] = []
    numbers = random.Random(0)
    for domain in sorted(by_domain):
        texts = by_domain[domain]
        numbers.shuffle(texts)
        taken = min(200, len(texts) // 4)
        examples += texts[:taken]
        pages += texts[taken:]
    numbers.shuffle(pages)
    prose = [text for text in pages if is_prose(text)][:count]
    code = iter([text for text in pages if text.domain not in _PROSE])
    return [
        _with_code(text, next(code, None)) if n % _CODE_EVERY == 0 else text for n, text in enumerate(prose)
    ], examples


def is_prose(text: Text) -> bool:
    """Whether a text is of a domain of prose, and most of it reads like sentences."""
    if text.domain not in _PROSE:
        return False
    sizes = [(len(paragraph), _SENTENCES.match(paragraph) is not None) for paragraph in text.paragraphs]
    indented = sum(len(part) for part in text.paragraphs if "\n " in part)
    total = sum(size for size, _ in sizes)
    return sum(size for size, prose in sizes if prose) - indented >= _LEAST_PROSE * total


def _with_code(text: Text, code: Text | None) -> Text:
    """The text with the first lines of a piece of code in its middle."""
    if code is None:
        return text
    lines = "\n\n".join(code.paragraphs).split("\n")[:15]
    if not any(line.startswith(" ") for line in lines):
        return text
    middle = len(text.paragraphs) // 2
    block = "\n".join(line for line in lines if line.strip())
    return dataclasses.replace(text, paragraphs=(*text.paragraphs[:middle], block, *text.paragraphs[middle:]))


def _cut(document: Document) -> Iterator[Text]:
    """Stretches of a document, each long enough to be a page, with a title of its own."""
    paragraphs: list[str] = []
    size = number = 0
    for paragraph in (part.strip("\n") for part in document.text.split("\n\n")):
        if not paragraph.strip() or len(paragraph) > _LONGEST:
            continue
        paragraphs.append(paragraph)
        size += len(paragraph)
        if size >= _SHORTEST * (1 + number % 2):
            yield Text(f"{document.id} ({number + 1})", tuple(paragraphs), document.domain)
            paragraphs, size, number = [], 0, number + 1


def _mark(paragraph: str) -> bytes:
    return hashlib.sha256(" ".join(paragraph.split()).encode("utf-8", "replace")).digest()[:12]


@functools.cache
def phrases() -> dict[str, Any]:
    """Sentences written for this purpose, which the installed packages have none of: `foreign`, in other languages;
    `unsafe_listed` and `unsafe_unlisted`, of the kind that block lists name, with and without words of the word list;
    `slots`, what fills their gaps; `spam`."""
    content: dict[str, Any] = json.loads(resources.files(__package__).joinpath("sentences.json").read_text("utf-8"))
    return content
