"""The faults of the synthetic web: what is injected, how often, and what a good curation does about each."""

import dataclasses
import gzip
import random
from collections.abc import Callable, Iterator

from maquette.corpus.synthetic_web.pages import (
    GoodPages,
    Site,
    SyntheticPage,
    Text,
    break_markup,
    gibberish,
    link_farm,
    make_site,
    number_table,
    phrases,
    render,
    sentences_page,
)  # fmt: skip

Maker = Callable[[GoodPages], SyntheticPage | None]
"""Makes one page with a fault; None where there is no text left for one."""

_NOTHING = Text("", (), "web")
_LISTED, _UNLISTED = "unsafe_listed", "unsafe_unlisted"


# Pages made from a good one


def _exact_copy(good: GoodPages) -> SyntheticPage:
    page = good.numbers.choice(good.pages)
    return dataclasses.replace(page, place=good.later(page), url=f"{page.url}/print")


def _mirrored(good: GoodPages) -> SyntheticPage | None:
    if not good.pages:
        return None
    page = good.pages.pop()
    host, _, path = page.url.removeprefix("http://").partition("/")
    return dataclasses.replace(page, place=good.later(page), url=f"http://mirror.{host}-cache.example/{path}")


def _near_copy(good: GoodPages) -> SyntheticPage:
    page = good.numbers.choice(good.pages)
    text, site = page.text or _NOTHING, good.site()
    paragraphs = list(text.paragraphs)
    place = good.numbers.randrange(len(paragraphs))
    words = paragraphs[place].split(" ")
    words[good.numbers.randrange(len(words))] = "amended"
    paragraphs[place] = " ".join(words)
    paragraphs.append(f"This copy was made on {good.numbers.randrange(1, 29)} March.")
    copy = dataclasses.replace(text, paragraphs=tuple(paragraphs))
    return SyntheticPage(good.later(page), good.url(site), render(site, copy).encode(), text=copy)


def _same_address(good: GoodPages) -> SyntheticPage:
    page = good.numbers.choice(good.pages)
    extras = ("?utm_source=letter&utm_medium=mail", "#comments", "?fbclid=IwAR0", "/", "/index.html")
    extra = good.numbers.choice(extras)
    return dataclasses.replace(page, place=good.later(page), url=page.url + extra)


def _broken_record(good: GoodPages) -> SyntheticPage:
    site = good.site()
    text = good.numbers.choice(good.pages).text or _NOTHING
    record = good.numbers.choice(("broken", "length"))
    return dataclasses.replace(good.page(site, render(site, text)), text=None, record=record)


def _one_host(good: GoodPages, count: int) -> list[SyntheticPage]:
    """The good pages of as many whole hosts as `count` pages take."""
    order = sorted(good.pages, key=lambda page: page.url)
    first = good.numbers.randrange(max(len(order) - count, 1))
    return order[first : first + count]


# Pages with a text that no other has


def _of_spare_text(write: Callable[[GoodPages, Text, Site], SyntheticPage]) -> Maker:
    def make(good: GoodPages) -> SyntheticPage | None:
        text, site = next(good.spare, None), good.site()
        if text is None:
            return None
        page = write(good, text, site)
        return dataclasses.replace(page, text=page.text or text, boilerplate=site.boilerplate)

    return make


def _personal(good: GoodPages, text: Text, site: Site) -> SyntheticPage:
    pii, decoys = _personal_data(good.numbers), _decoys(good.numbers)
    sentences = [f"For questions write or call: {value}." for _, value in pii]
    sentences += [f"Reference {number}: {value} is not a secret." for number, (_, value) in enumerate(decoys)]
    good.numbers.shuffle(sentences)
    text = dataclasses.replace(text, paragraphs=(*text.paragraphs, *sentences))
    return dataclasses.replace(good.page(site, render(site, text), text), pii=pii, decoys=decoys)


def _personal_data(numbers: random.Random) -> tuple[tuple[str, str], ...]:
    name = numbers.choice(("maria.lopez", "j.smith", "wei_chen", "amara", "o.nilsson")) + str(numbers.randrange(1000))
    digits = [4, *(numbers.randrange(10) for _ in range(14))]
    doubled = [2 * d - 9 if 2 * d > 9 else 2 * d for d in digits[::2]]
    digits.append(-(sum(doubled) + sum(digits[1::2])) % 10)
    card = "".join(map(str, digits))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    mail = f"{name}@{numbers.choice(('mailbox-co.net', 'posthaus.org', 'letterbox.io'))}"
    phones = (f"+49 30 {numbers.randrange(10**6, 10**7)}", f"(212) 555-{numbers.randrange(1000, 9999)}")
    result = [
        ("email", mail), ("phone", numbers.choice(phones)),
        ("ip", f"93.{numbers.randrange(100, 220)}.{numbers.randrange(1, 250)}.{numbers.randrange(1, 250)}"),
        ("card", " ".join(card[i : i + 4] for i in range(0, 16, 4))),
        ("secret", "AKIA" + "".join(numbers.choice(letters) for _ in range(16))),
    ]  # fmt: skip
    return tuple(numbers.sample(result, 3))


def _decoys(numbers: random.Random) -> tuple[tuple[str, str], ...]:
    items = [
        ("email", "user@example.com"), ("ip", "127.0.0.1"), ("ip", f"version 7.{numbers.randrange(20)}.3.1"),
        ("phone", f"part 555-{numbers.randrange(1000, 9999)}"), ("card", "4111 1111 1111 1112"),
        ("ip", "12:30:45"), ("secret", "AKIA-SHORT"),
    ]  # fmt: skip
    return tuple(numbers.sample(items, 2))


def _broken_markup(good: GoodPages, text: Text, site: Site) -> SyntheticPage:
    return good.page(site, break_markup(render(site, text), good.numbers))


def _other_encoding(good: GoodPages, text: Text, site: Site) -> SyntheticPage:
    accents = "Cafés, façades and naïve rôles — “quoted”, for £5."
    text = dataclasses.replace(text, paragraphs=(*text.paragraphs, accents))
    choices = (("cp1252", "header"), ("cp1252", "meta"), ("utf-16", "mark"), ("utf-8", "wrong"))
    name, how = good.numbers.choice(choices)
    html = render(site, text)
    html = html.replace('charset="utf-8"', f'charset="{name}"').replace('encoding="utf-8"', f'encoding="{name}"')
    if how == "meta":
        html = html.replace("<head>", f'<head><meta http-equiv="Content-Type" content="text/html; charset={name}">', 1)
    declared = {"header": f"; charset={name}", "wrong": "; charset=iso-8859-1"}.get(how, "")
    page = good.page(site, html.encode(name, "ignore"), text)
    return dataclasses.replace(page, content_type=f"text/html{declared}")


CODE = "def area(radius):\n    if radius < 0:\n        raise ValueError(radius)\n    return 3.14159 * radius ** 2"
TEX = r"\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}"


def _code_and_formulas(good: GoodPages, text: Text, site: Site) -> SyntheticPage:
    formula = (
        f'<p>Then <math><mi>x</mi><semantics><annotation encoding="application/x-tex">{TEX}</annotation></semantics>'
        f"</math> follows.</p><pre><code>{CODE.replace('<', '&lt;')}</code></pre>"
    )
    return good.page(site, render(site, text).replace("</h1>", f"</h1>{formula}", 1))


# Pages that need nothing of a good one


def _from(write: Callable[[GoodPages], Text | str | SyntheticPage]) -> Maker:
    """Makes pages from a text, from HTML that stands in place of one, or from what a server sends."""

    def make(good: GoodPages) -> SyntheticPage:
        site = good.site()
        url, place = good.url(site), good.numbers.random()
        written = write(good)
        if isinstance(written, SyntheticPage):
            return dataclasses.replace(written, place=place, url=url)
        if isinstance(written, Text):
            return SyntheticPage(place, url, render(site, written).encode(), text=written)
        whole = render(site, Text("Overview", ("BODY",), "web")).replace("BODY", written)
        return SyntheticPage(place, url, whole.encode())

    return make


def _blocked(good: GoodPages) -> SyntheticPage:
    numbers = good.numbers
    kind = numbers.choice(("casino", "poker", "slots"))
    host = f"{numbers.choice(('royal', 'lucky', 'best'))}-{kind}{numbers.randrange(40)}.example"
    text = _unsafe(good, _LISTED, _UNLISTED)
    site = make_site(host, "boxes", numbers)
    return good.page(site, render(site, text), text)


def _unsafe(good: GoodPages, *kinds: str) -> Text:
    """A page of sentences with their gaps filled, and an ordinary page's paragraphs between them."""
    numbers, templates = good.numbers, [sentence for kind in kinds for sentence in phrases()[kind]]
    sentences = [
        numbers.choice(templates).format(
            **{name: numbers.choice(words) for name, words in phrases()["slots"].items()},
            number=numbers.randrange(10, 1000),
        )
        for _ in range(16)
    ]
    ordinary = [
        part for page in numbers.sample(good.pages, 2) for part in (page.text or _NOTHING).paragraphs
        if len(part) < 300 and "\n" not in part
    ][:4]  # fmt: skip
    paragraphs = [" ".join(sentences[first : first + 4]) for first in range(0, 16, 4)] + ordinary
    numbers.shuffle(paragraphs)
    return Text("Welcome", tuple(paragraphs), "web")


def _spam(good: GoodPages) -> Text:
    phrase = good.numbers.choice(phrases()["spam"])
    return sentences_page([f"{phrase} {good.numbers.choice(phrase.split())}." for _ in range(60)], "Best price")


def _foreign(good: GoodPages) -> Text:
    foreign = phrases()["foreign"]
    language = foreign[good.numbers.choice(sorted(foreign))]
    return sentences_page([good.numbers.choice(language) for _ in range(30)], "Seite")


def _notice(title: str, kind: str) -> Text:
    return Text(title, tuple(phrases()[kind]), "web")


_ENDLESS = "<p>The row of numbers and of words that follows has no end. "
_NESTED = "<div>" * 150_000 + "deep" + "</div>" * 150_000
_EMPTY = b"<html><head><title>Loading</title></head><body><div id=app></div></body></html>"


def _bomb(good: GoodPages) -> SyntheticPage:
    body = gzip.compress(b"<html><p>bomb" + b" " * (100 << 20), 9, mtime=0)
    return SyntheticPage(0.0, "", body, headers="Content-Encoding: gzip\r\n")


def _not_200(good: GoodPages) -> SyntheticPage:
    site = good.site()
    url, place = good.url(site), good.numbers.random()
    status = good.numbers.choice(("404 Not Found", "301 Moved Permanently", "500 Internal Server Error"))
    text = Text(status, (status,), "web")
    return SyntheticPage(place, url, render(site, text).encode(), text=text, status=status)


def _not_text(good: GoodPages) -> SyntheticPage:
    kind = good.numbers.choice(("image/png", "application/pdf", "application/json"))
    return SyntheticPage(0.0, "", bytes(good.numbers.randrange(256) for _ in range(500)), content_type=kind)


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """`keep`: a good curation keeps such pages. `share`: of them for each good page. `steps`: which steps (or whole
    reasons) are there for it. `make` makes one."""

    name: str
    keep: bool
    share: float
    steps: tuple[str, ...]
    make: Maker


_COPIES = ("near duplicate", "repetition")
_GOPHER = ("gopher", "fineweb", "c4")

FAULTS = (
    Fault("exact copy", False, 0.04, _COPIES, _exact_copy),
    Fault("near copy", False, 0.04, _COPIES, _near_copy),
    Fault("mirrored host", False, 0.04, _COPIES, _mirrored),
    Fault("same address", False, 0.03, ("url duplicate",), _same_address),
    Fault("spam", False, 0.025, (*_GOPHER, "safety: drugs"), _from(_spam)),
    Fault("link farm", False, 0.015, _GOPHER, _from(lambda good: link_farm(good.numbers, good.sites))),
    Fault("blocked host", False, 0.04, ("url",), _blocked),
    Fault("unsafe, listed words", False, 0.02, ("safety",), _from(lambda good: _unsafe(good, _LISTED))),
    Fault("unsafe, other words", False, 0.02, ("safety: classifier",), _from(lambda good: _unsafe(good, _UNLISTED))),
    Fault("other language", False, 0.04, ("language",), _from(_foreign)),
    Fault("numbers", False, 0.015, ("gopher",), _from(lambda good: number_table(good.numbers))),
    Fault(
        "soft 404",
        False,
        0.015,
        ("page: not found", "gopher"),
        _from(lambda _: _notice("Error 404", "not_found")),
    ),
    Fault(
        "placeholder text",
        False,
        0.01,
        ("c4: placeholder_text",),
        _from(lambda _: _notice("Draft", "placeholder")),
    ),
    Fault("invented words", False, 0.01, ("outlier", "language"), _from(lambda good: gibberish(good.numbers))),
    Fault("giant page", False, 0.002, ("page: too large",), _from(lambda _: _ENDLESS * 60_000)),
    Fault("compressed bomb", False, 0.001, ("page: too large",), _from(_bomb)),
    Fault("nested without end", False, 0.0005, ("page: takes too long",), _from(lambda _: _NESTED)),
    Fault("empty page", False, 0.015, ("page: no text", "gopher"), _from(lambda _: SyntheticPage(0.0, "", _EMPTY))),
    Fault("answer not 200", False, 0.02, ("answer: not 200",), _not_200),
    Fault("no text", False, 0.02, ("answer: not a text",), _from(_not_text)),
    Fault("broken record", False, 0.005, ("record",), _broken_record),
    Fault("personal data", True, 0.05, (), _of_spare_text(_personal)),
    Fault("broken markup", True, 0.04, (), _of_spare_text(_broken_markup)),
    Fault("other encoding", True, 0.03, (), _of_spare_text(_other_encoding)),
    Fault("code and formulas", True, 0.02, (), _of_spare_text(_code_and_formulas)),
)


def inject(fault: Fault, count: int, good: GoodPages) -> Iterator[SyntheticPage]:
    """`count` pages with a fault, or as many as there are texts for."""
    if fault.name == "mirrored host":
        good = dataclasses.replace(good, pages=_one_host(good, count))
    for _ in range(count):
        page = fault.make(good)
        if page is None:
            return
        yield dataclasses.replace(page, fault=fault.name)
