"""The pages of the synthetic web: real text of the `installed` source in the size of web pages, as HTML of four kinds
of sites, each with its menu and footer; and what a page can suffer from.
"""

import dataclasses
import functools
import hashlib
import html
import json
import random
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.sources.installed import PACKAGES, Installed
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
    """What the installed packages have none of: sentences `foreign`, in other languages, `unsafe_listed` and
    `unsafe_unlisted`, of the kind that block lists name, with and without words of the word list, `slots`, what fills
    their gaps, `spam`, `not_found`, `placeholder`; and the look of `sites`: `menu`, `footers`, HTML."""
    content: dict[str, Any] = json.loads(resources.files(__package__).joinpath("sentences.json").read_text("utf-8"))
    return content


STYLES = ("semantic", "boxes", "xhtml", "old")


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """A host with its look: what stands on each of its pages beside the text."""

    host: str
    style: str
    menu: tuple[str, ...]
    footer: tuple[str, ...]

    @property
    def boilerplate(self) -> tuple[str, ...]:
        """The lines that are on every page and belong to none."""
        return (*self.menu, *self.footer)


@dataclasses.dataclass(frozen=True, slots=True)
class SyntheticPage:
    """A page of the synthetic web, and the truth about it.

    `place` orders the crawl. `body` and `headers` are what the server sends. `record` says what happens to the record:
    empty, `truncated` or `broken`. `pii` and `decoys` are (kind, value) that must and must not be replaced.
    """

    place: float
    url: str
    body: bytes
    fault: str = ""
    content_type: str = "text/html; charset=utf-8"
    status: str = "200 OK"
    headers: str = ""
    record: str = ""
    text: Text | None = None
    pii: tuple[tuple[str, str], ...] = ()
    decoys: tuple[tuple[str, str], ...] = ()
    boilerplate: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class GoodPages:
    """What faults are made of: the good pages, their sites, texts that no page has yet, and a source of chance."""

    pages: list[SyntheticPage]
    sites: list[Site]
    spare: Iterator[Text]
    numbers: random.Random

    def later(self, page: SyntheticPage) -> float:
        """A place in the crawl behind a page."""
        return page.place + (1 - page.place) * (0.05 + 0.95 * self.numbers.random())

    def site(self) -> Site:
        return self.numbers.choice(self.sites)

    def url(self, site: Site) -> str:
        return f"http://{site.host}/page/{self.numbers.randrange(10**9)}"

    def page(self, site: Site, body: str | bytes, text: Text | None = None) -> SyntheticPage:
        """A page anywhere in the crawl."""
        body = body.encode() if isinstance(body, str) else body
        return SyntheticPage(self.numbers.random(), self.url(site), body, text=text)


def make_site(host: str, style: str, numbers: random.Random) -> Site:
    """A site with a menu and a footer of its own."""
    name = host.partition(".")[0].replace("-", " ").title()
    menu, footers = numbers.sample(phrases()["menu"], 7), numbers.sample(phrases()["footers"], 3)
    return Site(host, style, tuple(menu), tuple(line.format(name=name) for line in footers))


def render(site: Site, text: Text, links: list[str] | None = None) -> str:
    """The page as its site draws it."""
    body = "\n".join(_paragraph(paragraph, site.style) for paragraph in text.paragraphs)
    for link in links or ():
        body += f'\n<p>See <a href="{html.escape(link)}">{html.escape(link.rpartition("/")[2])}</a> for the source.</p>'
    return _page(site, text.title, body)


def _paragraph(paragraph: str, style: str) -> str:
    escaped = html.escape(paragraph, quote=False)
    if any(line.startswith((" ", "\t")) for line in paragraph.split("\n")):
        return f"<pre><code>{escaped}</code></pre>" if style != "old" else f"<PRE>{escaped}</PRE>"
    return f"<p>{escaped}</p>" if style != "old" else f"<P>{escaped}"


def _page(site: Site, title: str, body: str) -> str:
    markup = phrases()["sites"][site.style]
    entries = [_filled(markup["menu"], place=str(place), entry=entry) for place, entry in enumerate(site.menu)]
    footer = markup["between"].join(_filled(markup["footer"], entry=line) for line in site.footer)
    return _filled(markup["page"], title=html.escape(title), menu="".join(entries), body=body, footer=footer)


def _filled(template: str, **values: str) -> str:
    """The template with `{name}` replaced; other braces, and those in what is filled in, stay."""
    return re.sub(rf"\{{({'|'.join(values)})\}}", lambda match: values[match[1]], template)


def break_markup(page: str, numbers: random.Random) -> str:
    """The page with what real ones suffer from: tags never closed or closed twice, stray brackets, cut attributes."""
    for tag in ("</p>", "</li>", "</div>", "</td>"):
        pieces = page.split(tag)
        page = "".join(piece + ("" if numbers.random() < 0.6 else tag) for piece in pieces[:-1]) + pieces[-1]
    page = page.replace("<h1>", "<h1><b><i>", 1).replace("</body>", "</span></b></body></body>")
    place = page.find("<p>")
    return page[:place] + '<p class=broken" id=x><font color=red></p> << <p>' + page[place:] if place > 0 else page


def sentences_page(sentences: list[str], title: str) -> Text:
    """A text of sentences, five to a paragraph."""
    paragraphs = [" ".join(sentences[first : first + 5]) for first in range(0, len(sentences), 5)]
    return Text(title, tuple(paragraphs), "web")


def number_table(numbers: random.Random) -> str:
    """Rows of numbers as a table."""
    rows = ("".join(f"<td>{numbers.random() * 1000:.3f}</td>" for _ in range(8)) for _ in range(60))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def link_farm(numbers: random.Random, sites: list[Site]) -> str:
    """A list of links to everywhere."""
    entries = (
        f'<li><a href="http://{numbers.choice(sites).host}/{numbers.randrange(10**6)}">best offers {number}</a></li>'
        for number in range(150)
    )
    return f"<ul>{''.join(entries)}</ul>"


def gibberish(numbers: random.Random) -> Text:
    """A page of invented words between common ones: every surface rule is content with them."""
    common = ("the", "of", "and", "to", "that", "with", "have", "be", "is", "in")

    def word() -> str:
        if numbers.random() < 0.3:
            return numbers.choice(common)
        return "".join(numbers.choice(phrases()["syllables"]) for _ in range(numbers.randrange(2, 5)))

    sentences = [" ".join(word() for _ in range(numbers.randrange(9, 18))).capitalize() + "." for _ in range(60)]
    return sentences_page(sentences, "On the whole")
