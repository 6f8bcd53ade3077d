"""The faults of the made web: what is planted, how often, and what a good curation does about each."""

import dataclasses
import random
from collections.abc import Callable, Iterator

from maquette.corpus.synthetic_web.pages import (
    Site,
    break_markup,
    gibberish,
    link_farm,
    make_site,
    number_table,
    render,
    sentences_page,
)  # fmt: skip
from maquette.corpus.synthetic_web.texts import FOREIGN, SLOTS, SPAM, UNSAFE_LISTED, UNSAFE_UNLISTED, Text


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A page of the made web, and the truth about it.

    `place` orders the crawl. `body` and `headers` are what the server sends. `record` says what happens to the record:
    empty, `truncated` or `broken`. `private` and `decoys` are (kind, value) that must and must not be replaced.
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
    private: tuple[tuple[str, str], ...] = ()
    decoys: tuple[tuple[str, str], ...] = ()
    boilerplate: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """`keep`: a good curation keeps such pages. `share`: of them for each good page. `steps`: which steps (or whole
    reasons) are there for it."""

    name: str
    keep: bool
    share: float
    steps: tuple[str, ...]


_COPIES = ("near duplicate", "repetition")

FAULTS = (
    Fault("exact copy", False, 0.04, _COPIES),
    Fault("near copy", False, 0.04, _COPIES),
    Fault("mirrored host", False, 0.04, _COPIES),
    Fault("same address", False, 0.03, ("url duplicate",)),
    Fault("spam", False, 0.025, ("gopher", "fineweb", "c4", "harmful: drugs")),
    Fault("link farm", False, 0.015, ("gopher", "fineweb", "c4")),
    Fault("blocked host", False, 0.04, ("url",)),
    Fault("unsafe, listed words", False, 0.02, ("harmful",)),
    Fault("unsafe, other words", False, 0.02, ("harmful: classifier",)),
    Fault("other language", False, 0.04, ("language",)),
    Fault("numbers", False, 0.015, ("gopher",)),
    Fault("soft 404", False, 0.015, ("page: not found", "gopher")),
    Fault("placeholder text", False, 0.01, ("c4: placeholder_text",)),
    Fault("invented words", False, 0.01, ("outlier", "language")),
    Fault("giant page", False, 0.002, ("page: too large",)),
    Fault("compressed bomb", False, 0.001, ("page: too large",)),
    Fault("nested without end", False, 0.0005, ("page: takes too long",)),
    Fault("empty page", False, 0.015, ("page: no text", "gopher")),
    Fault("answer not 200", False, 0.02, ("answer: not 200",)),
    Fault("no text", False, 0.02, ("answer: not a text",)),
    Fault("broken record", False, 0.005, ("record",)),
    Fault("private data", True, 0.05, ()),
    Fault("broken markup", True, 0.04, ()),
    Fault("other encoding", True, 0.03, ()),
    Fault("code and formulas", True, 0.02, ()),
)

BY_NAME = {fault.name: fault for fault in FAULTS}


@dataclasses.dataclass(frozen=True)
class Ground:
    """What faults grow on: the good pages, their sites, texts that no page has yet, and a source of chance."""

    good: list[Made]
    sites: list[Site]
    spare: Iterator[Text]
    numbers: random.Random

    def later(self, page: Made) -> float:
        """A place in the crawl behind a page."""
        return page.place + (1 - page.place) * (0.05 + 0.95 * self.numbers.random())

    def site(self) -> Site:
        return self.numbers.choice(self.sites)

    def url(self, site: Site) -> str:
        return f"http://{site.host}/page/{self.numbers.randrange(10**9)}"


def plant(fault: Fault, count: int, ground: Ground) -> Iterator[Made]:
    """`count` pages with a fault."""
    makers: dict[str, Callable[[str, Ground], Made | None]] = {
        "exact copy": _exact_copy, "near copy": _near_copy, "mirrored host": _mirrored, "same address": _same_address,
        "private data": _private, "broken markup": _broken_markup, "other encoding": _other_encoding,
        "code and formulas": _code_and_formulas, "broken record": _broken_record, "blocked host": _blocked,
    }  # fmt: skip
    if fault.name == "mirrored host":
        ground = dataclasses.replace(ground, good=_one_host(ground, count))
    for _ in range(count):
        page = makers.get(fault.name, _written)(fault.name, ground)
        if page is None:
            return
        yield page


def _one_host(ground: Ground, count: int) -> list[Made]:
    """The good pages of as many whole hosts as `count` pages take."""
    order = sorted(ground.good, key=lambda page: page.url)
    first = ground.numbers.randrange(max(len(order) - count, 1))
    return order[first : first + count]


def _exact_copy(fault: str, ground: Ground) -> Made:
    page = ground.numbers.choice(ground.good)
    return dataclasses.replace(page, place=ground.later(page), url=f"{page.url}/print", fault=fault)


def _mirrored(fault: str, ground: Ground) -> Made | None:
    if not ground.good:
        return None
    page = ground.good.pop()
    host, _, path = page.url.removeprefix("http://").partition("/")
    return dataclasses.replace(
        page, place=ground.later(page), url=f"http://mirror.{host}-cache.example/{path}", fault=fault
    )


def _near_copy(fault: str, ground: Ground) -> Made:
    page = ground.numbers.choice(ground.good)
    text, site = page.text, ground.site()
    assert text is not None
    paragraphs = list(text.paragraphs)
    place = ground.numbers.randrange(len(paragraphs))
    words = paragraphs[place].split(" ")
    words[ground.numbers.randrange(len(words))] = "amended"
    paragraphs[place] = " ".join(words)
    paragraphs.append(f"This copy was made on {ground.numbers.randrange(1, 29)} March.")
    copy = dataclasses.replace(text, paragraphs=tuple(paragraphs))
    return Made(ground.later(page), ground.url(site), render(site, copy).encode(), fault, text=copy)


def _same_address(fault: str, ground: Ground) -> Made:
    page = ground.numbers.choice(ground.good)
    extra = ground.numbers.choice(
        ("?utm_source=letter&utm_medium=mail", "#comments", "?fbclid=IwAR0", "/", "/index.html")
    )
    return dataclasses.replace(page, place=ground.later(page), url=page.url + extra, fault=fault)


def _blocked(fault: str, ground: Ground) -> Made:
    numbers = ground.numbers
    kind = numbers.choice(("casino", "poker", "slots"))
    host = f"{numbers.choice(('royal', 'lucky', 'best'))}-{kind}{numbers.randrange(40)}.example"
    text = _unsafe(UNSAFE_LISTED + UNSAFE_UNLISTED, 16, ground)
    site = make_site(host, "boxes", numbers)
    return Made(numbers.random(), ground.url(site), render(site, text).encode(), fault, text=text)


def _unsafe(templates: tuple[str, ...], count: int, ground: Ground) -> Text:
    """A page of sentences with their gaps filled, and an ordinary page's paragraphs between them."""
    numbers = ground.numbers
    sentences = [
        numbers.choice(templates).format(
            **{name: numbers.choice(words) for name, words in SLOTS.items()}, number=numbers.randrange(10, 1000)
        )
        for _ in range(count)
    ]
    ordinary = [
        part for page in numbers.sample(ground.good, 2) for part in (page.text or _NOTHING).paragraphs
        if len(part) < 300 and "\n" not in part
    ][:4]  # fmt: skip
    paragraphs = [" ".join(sentences[first : first + 4]) for first in range(0, count, 4)] + ordinary
    numbers.shuffle(paragraphs)
    return Text("Welcome", tuple(paragraphs), "web")


_NOTHING = Text("", (), "web")


def _private(fault: str, ground: Ground) -> Made | None:
    text, site, numbers = next(ground.spare, None), ground.site(), ground.numbers
    if text is None:
        return None
    private, decoys = _private_data(numbers), _decoys(numbers)
    sentences = [f"For questions write or call: {value}." for _, value in private]
    sentences += [f"Reference {number}: {value} is not a secret." for number, (_, value) in enumerate(decoys)]
    numbers.shuffle(sentences)
    text = dataclasses.replace(text, paragraphs=(*text.paragraphs, *sentences))
    body = render(site, text).encode()
    return Made(numbers.random(), ground.url(site), body, fault, text=text, private=private, decoys=decoys,
                boilerplate=site.boilerplate)  # fmt: skip


def _private_data(numbers: random.Random) -> tuple[tuple[str, str], ...]:
    name = numbers.choice(("maria.lopez", "j.smith", "wei_chen", "amara", "o.nilsson")) + str(numbers.randrange(1000))
    digits = [4, *(numbers.randrange(10) for _ in range(14))]
    doubled = [2 * d - 9 if 2 * d > 9 else 2 * d for d in digits[::2]]
    digits.append(-(sum(doubled) + sum(digits[1::2])) % 10)
    card = "".join(map(str, digits))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    found = [
        ("email", f"{name}@{numbers.choice(('mailbox-co.net', 'posthaus.org', 'letterbox.io'))}"),
        (
            "phone",
            numbers.choice((f"+49 30 {numbers.randrange(10**6, 10**7)}", f"(212) 555-{numbers.randrange(1000, 9999)}")),
        ),
        ("ip", f"93.{numbers.randrange(100, 220)}.{numbers.randrange(1, 250)}.{numbers.randrange(1, 250)}"),
        ("card", " ".join(card[i : i + 4] for i in range(0, 16, 4))),
        ("secret", "AKIA" + "".join(numbers.choice(letters) for _ in range(16))),
    ]
    return tuple(numbers.sample(found, 3))


def _decoys(numbers: random.Random) -> tuple[tuple[str, str], ...]:
    found = [
        ("email", "user@example.com"), ("ip", "127.0.0.1"), ("ip", f"version 7.{numbers.randrange(20)}.3.1"),
        ("phone", f"part 555-{numbers.randrange(1000, 9999)}"), ("card", "4111 1111 1111 1112"),
        ("ip", "12:30:45"), ("secret", "AKIA-SHORT"),
    ]  # fmt: skip
    return tuple(numbers.sample(found, 2))


def _broken_markup(fault: str, ground: Ground) -> Made | None:
    text, site = next(ground.spare, None), ground.site()
    if text is None:
        return None
    body = break_markup(render(site, text), ground.numbers).encode()
    return Made(ground.numbers.random(), ground.url(site), body, fault, text=text, boilerplate=site.boilerplate)


def _other_encoding(fault: str, ground: Ground) -> Made | None:
    text, site, numbers = next(ground.spare, None), ground.site(), ground.numbers
    if text is None:
        return None
    text = dataclasses.replace(
        text, paragraphs=(*text.paragraphs, "Cafés, façades and naïve rôles — “quoted”, for £5.")
    )
    name, how = numbers.choice((("cp1252", "header"), ("cp1252", "meta"), ("utf-16", "mark"), ("utf-8", "wrong")))
    page = (
        render(site, text)
        .replace('charset="utf-8"', f'charset="{name}"')
        .replace('encoding="utf-8"', f'encoding="{name}"')
    )
    if how == "meta":
        page = page.replace("<head>", f'<head><meta http-equiv="Content-Type" content="text/html; charset={name}">', 1)
    content_type = {"header": f"text/html; charset={name}", "wrong": "text/html; charset=iso-8859-1"}.get(
        how, "text/html"
    )
    return Made(numbers.random(), ground.url(site), page.encode(name, "ignore"), fault, content_type, text=text,
                boilerplate=site.boilerplate)  # fmt: skip


CODE = "def area(radius):\n    if radius < 0:\n        raise ValueError(radius)\n    return 3.14159 * radius ** 2"
TEX = r"\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}"


def _code_and_formulas(fault: str, ground: Ground) -> Made | None:
    text, site = next(ground.spare, None), ground.site()
    if text is None:
        return None
    formula = (
        f'<p>Then <math><mi>x</mi><semantics><annotation encoding="application/x-tex">{TEX}</annotation></semantics>'
        f"</math> follows.</p><pre><code>{CODE.replace('<', '&lt;')}</code></pre>"
    )
    body = render(site, text).replace("</h1>", f"</h1>{formula}", 1).encode()
    return Made(ground.numbers.random(), ground.url(site), body, fault, text=text, boilerplate=site.boilerplate)


def _broken_record(fault: str, ground: Ground) -> Made:
    site = ground.site()
    text = ground.numbers.choice(ground.good).text or _NOTHING
    record = ground.numbers.choice(("broken", "length"))
    return Made(ground.numbers.random(), ground.url(site), render(site, text).encode(), fault, record=record)


def _written(fault: str, ground: Ground) -> Made:
    """Faults that need nothing of a good page."""
    numbers, site = ground.numbers, ground.site()
    url, place = ground.url(site), numbers.random()

    def page(text: Text) -> Made:
        return Made(place, url, render(site, text).encode(), fault, text=text)

    def inner(body: str) -> Made:
        whole = render(site, Text("Overview", ("BODY",), "web")).replace("BODY", body)
        return Made(place, url, whole.encode(), fault)

    if fault == "spam":
        phrase = numbers.choice(SPAM)
        return page(sentences_page([f"{phrase} {numbers.choice(phrase.split())}." for _ in range(60)], "Best price"))
    if fault == "link farm":
        return inner(link_farm(numbers, [one.host for one in ground.sites]))
    if fault == "unsafe, listed words":
        return page(_unsafe(UNSAFE_LISTED, 16, ground))
    if fault == "unsafe, other words":
        return page(_unsafe(UNSAFE_UNLISTED, 16, ground))
    if fault == "other language":
        sentences = FOREIGN[numbers.choice(sorted(FOREIGN))]
        return page(sentences_page([numbers.choice(sentences) for _ in range(30)], "Seite"))
    if fault == "numbers":
        return inner(number_table(numbers))
    if fault == "soft 404":
        return page(
            Text("Error 404", (
                "404: page not found.", "Sorry, the page that you asked for could not be found here. It may have "
                "moved, or the link that you followed may be out of date. You can go back and try the search, or "
                "write to us and tell us what you were looking for, so that we can help you to find it. The team is "
                "always glad to hear from readers of these pages.",
            ), "web")
        )  # fmt: skip
    if fault == "placeholder text":
        lorem = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor. "
        filler = "The text of this page will be added by the editors of the site when they have the time to do so. "
        return page(Text("Draft", (lorem * 2 + filler * 2, f"{filler}It is to be here soon."), "web"))
    if fault == "invented words":
        return page(sentences_page(gibberish(numbers), "On the whole"))
    if fault == "giant page":
        return inner("<p>The row of numbers and of words that follows has no end. " * 60_000)
    if fault == "nested without end":
        return inner("<div>" * 150_000 + "deep" + "</div>" * 150_000)
    if fault == "compressed bomb":
        import gzip

        body = gzip.compress(b"<html><p>bomb" + b" " * (100 << 20), 9, mtime=0)
        return Made(place, url, body, fault, headers="Content-Encoding: gzip\r\n")
    if fault == "empty page":
        return Made(
            place, url, b"<html><head><title>Loading</title></head><body><div id=app></div></body></html>", fault
        )
    if fault == "answer not 200":
        status = numbers.choice(("404 Not Found", "301 Moved Permanently", "500 Internal Server Error"))
        return dataclasses.replace(page(Text(status, (status,), "web")), status=status)
    assert fault == "no text", fault
    kind = numbers.choice(("image/png", "application/pdf", "application/json"))
    return Made(place, url, bytes(numbers.randrange(256) for _ in range(500)), fault, content_type=kind)
