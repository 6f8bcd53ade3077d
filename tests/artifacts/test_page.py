"""Pages: well-formed, self-contained, escaped, and readable without eyes."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from maquette.artifacts.page import Fact, Page, Picture
from maquette.reports.figures import new_figure, save_figure

VOID = {"meta", "link", "img", "br"}


class Reader(HTMLParser):
    """Checks that tags close in order, and collects ids, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Figure, Path]:
    figure, axes = new_figure(width=2, height=2)
    axes.plot([0, 1], [1, 0], label="a < b")
    axes.set_xlabel("tokens")
    axes.legend()
    return figure, save_figure(figure, tmp_path_factory.mktemp("figures") / "loss")


@pytest.fixture
def page(drawn: tuple[Figure, Path]) -> Page:
    figure, image = drawn
    page = Page("Runs & <losses>", lead="It took `5 minutes`.", footer="Made by [maquette](https://example.org).")
    page.section("Numbers")
    page.facts([Fact("parameters", "300,123", "core & head"), Fact("loss", "3.04")])
    page.pictures(Picture(figure, "Loss by tokens", "a falling line"), Picture(figure, "Again"))
    page.pictures(Picture(image, "From a file"), Picture(image.with_suffix(".svg"), "From a vector file"))
    page.section("Tables")
    page.heading("Bits per byte")
    page.table(
        ["domain", "model", "unigram", "note"],
        [["code", 1.5, (4.25, "4.25 bits"), "-"], ["legal", 2.0, 1.0, "<b>"]], caption="Less is better", best="min",
    )  # fmt: skip
    page.code("mlflow ui --backend-store-uri 'sqlite:///x' && echo <done>")
    page.samples([("def ", "f(x):\n    return x < 1", "temperature 0.8")])
    page.pieces([("tokens", ["hel", "lo", " <w>"])])
    return page


def test_the_page_is_well_formed_and_refers_only_to_itself(page: Page) -> None:
    text = page.render()
    reader = Reader(text)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    inside = {address for address in re.findall(r'(?:href="|url\()#([^")]+)', text)}
    assert inside <= set(reader.ids)
    for tag, attributes in reader.tags:
        address = attributes.get("src") or (attributes.get("href") if tag != "a" else None)
        assert address is None or address.startswith(("data:", "#")), (tag, address)
    assert "<script" not in text
    assert "@import" not in text


def test_everything_is_escaped(page: Page) -> None:
    text = page.render()
    for dangerous in ("<losses>", "<done>", "<w>", "<b>"):
        assert dangerous not in text
    assert "Runs &amp; &lt;losses&gt;" in text
    page.text("[click](javascript:alert(1)) [here](data:text/html,x) `<i>` **<u>**")
    assert "javascript:" not in re.sub(r"<p>.*?</p>", "", page.render(), flags=re.DOTALL)
    assert 'href="javascript' not in page.render()
    assert 'href="data:text' not in page.render()
    assert "<code>&lt;i&gt;</code>" in page.render()


def test_pictures_can_be_heard_and_follow_the_page_s_colours(page: Page) -> None:
    reader = Reader(page.render())
    described = [a.get("aria-label") for tag, a in reader.tags if tag == "svg"] + [
        a.get("alt") for tag, a in reader.tags if tag == "img"
    ]
    assert described == ["a falling line", "Again", "From a file", "From a vector file"]
    assert "tokens" in reader.words, "labels stay text"
    drawing = re.search(r"<svg.*?</svg>", page.render(), re.DOTALL)
    assert drawing is not None
    assert "#000000" not in drawing[0]
    assert "currentColor" in drawing[0]


def test_tables_mark_numbers_and_the_best_of_each_row(page: Page) -> None:
    text = page.render()
    assert '<td class="number best">1.5</td><td class="number">4.25 bits</td>' in text
    assert '<td class="number">2</td><td class="number best">1</td><td>&lt;b&gt;</td>' in text
    assert '<th scope="row">code</th>' in text


def test_the_same_page_is_the_same_file(page: Page, tmp_path: Path) -> None:
    first = page.write(tmp_path / "a" / "index.html").read_bytes()
    assert page.write(tmp_path / "b.html").read_bytes() == first


def test_a_part_needs_a_section() -> None:
    with pytest.raises(ValueError, match="section"):
        Page("x").text("y")
