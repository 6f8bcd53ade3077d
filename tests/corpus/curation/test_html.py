import random
from pathlib import Path

import pytest

from maquette.corpus.document import Document
from maquette.corpus.sources.html import decode, extract, keep_tex, links
from maquette.corpus.sources.warc import ArchiveShard
from maquette.corpus.synthetic_web.pages import STYLES, Text, break_markup, make_site, render
from support.made_archives import record

CODE = "def area(r):\n    if r < 0:\n        raise ValueError\n    return 3 * r"
PARAGRAPHS = (
    "The first paragraph of this page has a few words more than a menu has, so that it is seen as text.",
    CODE,
    "The second paragraph follows the code and says that nothing of it may be lost on the way to the text.",
)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_page_gives_its_text_with_code_as_it_stands(style: str) -> None:
    site = make_site("meadow-1.example", style, random.Random(0))
    text = extract(render(site, Text("A title", PARAGRAPHS, "docs"))).text
    for part in PARAGRAPHS:
        assert part in text


def test_menus_and_footers_of_marked_pages_are_left_out() -> None:
    site = make_site("meadow-1.example", "semantic", random.Random(0))
    result = extract(render(site, Text("A title", PARAGRAPHS, "docs")))
    assert result.title == "A title"
    assert not any(line in result.text for line in site.boilerplate)


def test_broken_markup_costs_no_paragraph() -> None:
    site = make_site("meadow-1.example", "boxes", random.Random(0))
    for seed in range(20):
        broken = break_markup(render(site, Text("A title", PARAGRAPHS, "docs")), random.Random(seed))
        text = extract(broken).text
        assert PARAGRAPHS[2] in text
        assert CODE in text


def test_formulas_are_kept_as_tex() -> None:
    annotated = (
        '<p>So <math display="block"><mi>x</mi><annotation encoding="application/x-tex">{\\displaystyle x^2}'
        '</annotation></math>, <script type="math/tex">a &lt; b</script> and <math alttext="\\alpha"><mi>α</mi></math> '
        "and $y_1$.</p>"
    )
    assert " ".join(extract(annotated).text.split()) == "So $$x^2$$ , $a < b$ and $\\alpha$ and $y_1$."
    assert keep_tex("<p>no formula</p>") == "<p>no formula</p>"


@pytest.mark.parametrize(
    ("body", "declared"),
    [
        ("naïve café".encode(), "iso-8859-1"),
        ("\ufeffnaïve café".encode(), ""),
        ("naïve café".encode("utf-16"), ""),
        ("naïve café".encode("latin-1"), "ISO-8859-1"),
        ('<meta charset="windows-1252">naïve café'.encode("cp1252"), ""),
        ("<?xml version='1.0' encoding='iso-8859-15'?>naïve café".encode("iso-8859-15"), "no-such-encoding"),
    ],
)
def test_encodings_are_sniffed(body: bytes, declared: str) -> None:
    assert decode(body, declared).endswith("naïve café")


def test_bytes_of_no_encoding_become_text_all_the_same() -> None:
    for seed in range(30):
        assert isinstance(decode(random.Random(seed).randbytes(300), "utf-8"), str)


def test_links_are_found() -> None:
    assert links(
        "<a href='http://a.example/x?a=1&amp;b=2'>x</a><a class=c href=https://b.example>y</a><a href=/z>"
    ) == [
        "http://a.example/x?a=1&b=2",
        "https://b.example",
    ]


def test_trafilatura_is_an_option() -> None:
    site = make_site("meadow-1.example", "xhtml", random.Random(0))
    assert PARAGRAPHS[0] in extract(render(site, Text("A title", PARAGRAPHS, "docs")), "trafilatura").text


def test_a_thousand_mutations_of_a_page_are_survived() -> None:
    chance = random.Random(3)
    site = make_site("meadow-1.example", "semantic", chance)
    whole = render(site, Text("A title", PARAGRAPHS, "docs")).encode()
    for _ in range(1000):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(broken))
            size = chance.randrange(1, 30)
            choice = chance.randrange(3)
            if choice == 0:
                broken[place : place + size] = chance.randbytes(size)
            elif choice == 1:
                del broken[place : place + size]
            else:
                broken[place:place] = broken[: chance.randrange(len(broken))]
        assert isinstance(extract(decode(bytes(broken))).text, str)


def test_a_thousand_mutations_of_a_page_give_text_and_cost_a_neighbour_nothing(tmp_path: Path) -> None:
    chance = random.Random(3)
    site = make_site("meadow-1.example", "semantic", random.Random(0))
    whole = render(site, Text("A title", PARAGRAPHS, "docs")).encode()
    records = [record(whole, "http://site.example/good")]
    for number in range(1000):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(broken))
            match chance.randrange(4):
                case 0:
                    broken[place] = chance.randrange(256)
                case 1:
                    del broken[place : place + chance.randrange(1, 40)]
                case 2:
                    broken[place:place] = chance.choice((b"<", b"</p>", b"<div", b"&#x;", b"\0", b"<!--", b"<math>"))
                case _:
                    broken[place:place] = broken[place : place + 200]
        records.append(record(bytes(broken), f"http://site.example/{number}"))
    path = tmp_path / "crawl.warc"
    path.write_bytes(b"".join([*records, records[0]]))
    shard = ArchiveShard(str(path), path.name, 0, path.stat().st_size, "web", "resiliparse", 2_000_000)
    documents = list(shard.documents(lambda url: None, lambda number, place: True, lambda url: False))
    assert len(documents) == 1002
    good = [one.text for one in documents if isinstance(one, Document) and one.url == "http://site.example/good"]
    assert len(good) == 2 and good[0] == good[1]
    assert CODE in good[0]
    intact = [one for one in documents if isinstance(one, Document) and PARAGRAPHS[0] in one.text]
    assert len(intact) > 500  # most mutations hit something else
