"""Pages: well-formed, self-contained, escaped, and readable without eyes; tables that mean the same everywhere."""

import datetime
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
from rich.console import Console

from maquette.reports import pages, quantity, render, write_page
from maquette.reports.figures import new_figure, save_figure
from maquette.reports.overview import SECTIONS, ListedPage
from maquette.reports.tables import Cell, coefficient, filename, span, tabulate, terminal_table, times

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

WRITTEN = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
VOID = {"meta", "link", "img", "br"}
TEMPLATE = """{% extends "page.html.j2" %}
{% import "parts.html.j2" as parts with context %}
{% block title %}{{ title }}{% endblock %}
{% block lead %}{{ "It took `5 minutes`." | marked }}{% endblock %}
{% block footer %}{{ "Made by [maquette](https://example.org)." | marked }}{% endblock %}
{% block content %}
{% call parts.section("Numbers") %}
{{ parts.numbers([("parameters", "300,123", "core & head"), ("loss", "3.04")]) }}
{{ parts.picture(figures.loss, "Loss by tokens", "a falling line") }}
{{ parts.picture(figures.loss, "Again") }}
{{ parts.picture(image, "From a file") }}
{{ parts.picture(image.with_suffix(".svg"), "From a vector file") }}
{% endcall %}
{% call parts.section("Tables") %}
<p>{{ text | marked }}</p>
{{ parts.table(["domain", "model", "unigram", "note"], rows, caption="Less is better", best="min") }}
{% if wide is defined %}{{ parts.table(wide, [wide, wide]) }}{{ parts.links(links) }}{% endif %}
{{ parts.code("mlflow ui --backend-store-uri 'sqlite:///x' && echo <done>") }}
{{ parts.samples([("def ", "f(x):\\n    return x < 1", "temperature 0.8")]) }}
{{ parts.pieces([("tokens", ["hel", "lo", " <w>"])]) }}
{% endcall %}
{% endblock %}
"""


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


@pytest.fixture(autouse=True)
def template(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more template, with every part in it."""
    own = pages.environment()
    loader = jinja2.ChoiceLoader([jinja2.DictLoader({"test.html.j2": TEMPLATE}), own.loader])
    monkeypatch.setattr(pages, "environment", lambda: own.overlay(loader=loader))


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, Any]:
    return make_facts(tmp_path)


def make_facts(folder: Path) -> dict[str, Any]:
    figure, axes = new_figure(width=2, height=2)
    axes.plot([0, 1], [1, 0], label="a < b")
    axes.axhline(0.5, color="0.1")
    axes.set_xlabel("tokens")
    axes.legend()
    return {
        "title": "Runs & <losses>",
        "text": "plain",
        "figures": {"loss": figure},
        "image": save_figure(figure, folder / "loss"),
        "rows": [["code", 1.5, (4.25, "4.25 bits"), "-"], ["legal", 2.0, 1.0, "<b>"]],
    }


@pytest.fixture
def page(facts: dict[str, Any]) -> str:
    return render("test.html.j2", facts)


def test_the_page_is_well_formed_and_refers_only_to_itself(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    inside = {address for address in re.findall(r'(?:href="|url\()#([^")]+)', page)}
    assert inside <= set(reader.ids)
    for tag, attributes in reader.tags:
        address = attributes.get("src") or (attributes.get("href") if tag != "a" else None)
        assert address is None or address.startswith(("data:", "#")), (tag, address)
    assert "<script" not in page
    assert "@import" not in page


def test_everything_is_escaped(page: str, facts: dict[str, Any]) -> None:
    for dangerous in ("<losses>", "<done>", "<w>", "<b>"):
        assert dangerous not in page
    assert "Runs &amp; &lt;losses&gt;" in page
    page = render(
        "test.html.j2",
        facts | {"text": "[click](javascript:alert(1)) [here](data:text/html,x) `<i>` **<u>**"},
    )
    assert "javascript:" not in re.sub(r"<p>.*?</p>", "", page, flags=re.DOTALL)
    assert 'href="javascript' not in page
    assert 'href="data:text' not in page
    assert "<code>&lt;i&gt;</code> <strong>&lt;u&gt;</strong>" in page
    assert '<a href="https://example.org">maquette</a>' in page


def test_what_a_template_was_not_given_is_an_error(facts: dict[str, Any]) -> None:
    del facts["text"]
    with pytest.raises(jinja2.UndefinedError, match="text"):
        render("test.html.j2", facts)


def test_pictures_can_be_heard_and_follow_the_page_s_colours(page: str) -> None:
    reader = Reader(page)
    described = [a.get("aria-label") for tag, a in reader.tags if a.get("role") == "img"] + [
        a.get("alt") for tag, a in reader.tags if tag == "img"
    ]
    assert described == ["a falling line", "Again", "From a file", "From a vector file"]
    assert "tokens" in reader.words, "labels stay text"
    drawing = re.search(r"<svg.*?</svg>", page, re.DOTALL)
    assert drawing is not None
    assert not any(color in drawing[0] for color in ("#000000", "#1a1a1a", "#ffffff"))
    assert "currentColor" in drawing[0]


def test_tables_mark_numbers_and_the_best_of_each_row(page: str) -> None:
    cells = re.findall(r'<td role="cell" class="([^"]*)" data-label="([^"]*)">(.*?)</td>', page)
    assert cells == [
        ("number best", "model", "1.5"), ("number", "unigram", "4.25 bits"), ("", "note", "-"),
        ("number", "model", "2"), ("number best", "unigram", "1"), ("", "note", "&lt;b&gt;"),
    ]  # fmt: skip
    assert '<th role="rowheader" scope="row">code</th>' in page


def test_the_same_page_is_the_same_file_with_its_figures(tmp_path: Path) -> None:
    first, again = (
        write_page(tmp_path / name, "test.html.j2", facts := make_facts(tmp_path), facts["figures"]).read_bytes()
        for name in ("a", "b")
    )
    assert first == again
    assert first.startswith(b"<!doctype html>")
    assert {path.name for path in (tmp_path / "a" / "figures").iterdir()} == {"loss.png", "loss.svg"}


def test_rows_fill_the_forms_of_their_columns() -> None:
    rows = [{"name": "a", "n": 1200, "ends": (0.25, 0.5), "rate": None}, {"name": "b", "n": 7, "ends": None, "rate": 1}]
    table = tabulate({"who": "{name}", "N": "{n:quantity}", "from": "{ends:span2}", "rate": "{rate:.1%}"}, rows)
    assert table.columns == [("who", False), ("N", True), ("from", False), ("rate", True)]
    assert table.rows[0] == [Cell("a", None), Cell("1.2k", 1200), Cell("0.25 to 0.50", None), Cell("", None)]
    assert [cell.text for cell in table.rows[1]] == ["b", "7", "", "100.0%"]
    assert [column.justify for column in terminal_table(["name", "n"], [("a", 1)]).columns] == ["left", "right"]


def test_a_narrow_terminal_breaks_headings_and_no_names() -> None:
    columns = ("model", "win rate", "interval", "p (Holm)", "at equal length", "won, tied, lost")
    console = Console(width=80, record=True, file=io.StringIO())
    cells = ("dpo-30k-4bb104e2", "67.5", "61.2-73.8", "<0.001", "50.7 ± 0.6", "15-24-1")
    console.print(terminal_table(columns, [cells]))
    [row] = [line for line in console.export_text().splitlines() if "dpo" in line]
    assert all(cell in row for cell in cells)


def test_long_cells_wrap_and_only_sentences_have_a_line_of_their_own() -> None:
    texts = ("0.1 to 0.2", "0.6032 (0.175 to 1.335)", "it can't be told where all are longer")
    cells = [Cell(text, None) for text in texts]
    assert [(cell.wraps, cell.is_sentence) for cell in cells] == [(False, False), (True, False), (True, True)]


def test_numbers_have_units_and_intervals_ends() -> None:
    assert [quantity(value) for value in (4.05e11, 999.6, 26_300_000, 0.5)] == ["405B", "1k", "26.3M", "0.5"]
    assert [span(ends) for ends in ((0.1, 0.25), (900, 1200), None, (None, 1))] == [
        "0.100 to 0.250", "900 to 1.2e+03", "none", "none",
    ]  # fmt: skip


def test_numbers_that_say_nothing_are_words() -> None:
    assert [times(factor) for factor in (1.234, 5.98e5)] == ["1.23 times", "over 1,000 times"]
    assert coefficient(0.5) == coefficient(0.5, (None, 1)) == "0.5"
    assert coefficient(0.5, (0.25, 1)) == "0.5 (0.250 to 1.000)"
    assert coefficient(8.24e23, (6.49e9, 2.16e230)) == "8.2e+23 (not determined)"
    assert [filename(source) for source in ("data/my.csv", "the sweep a/b of x")] == ["my.csv", "the sweep a/b of x"]


def test_warnings_stand_in_a_box_and_lesser_ones_are_folded() -> None:
    parts = "{% import 'parts.html.j2' as parts %}{{ parts.warnings(['a < b'], ['other']) }}{{ parts.warnings([]) }}"
    drawn = pages.environment().from_string(parts).render()
    assert drawn.count("<aside") == 1 and "<li>a &lt; b</li>" in drawn
    assert "<li>other</li>" in drawn[drawn.index("<details>") :]


def test_the_panels_of_a_figure_are_drawn_one_by_one_and_the_figure_stays(tmp_path: Path) -> None:
    figure, panels = new_figure(1, 2, width=3, height=2)
    for axes, name in zip(panels, ("left", "right"), strict=True):
        axes.set_title(name)
        axes.plot([0, 1], [1, 0])
    twin = panels[1].twinx()
    twin.set_ylabel("beside")
    drawn = re.findall(r"<svg.*?</svg>", str(pages.drawing(figure, "x-", "two panels")), re.DOTALL)
    assert [[word in one for word in ("left", "right", "beside")] for one in drawn] == [
        [True, False, False], [False, True, True],
    ]  # fmt: skip
    assert all(axes.get_visible() for axes in figure.axes) and figure.get_layout_engine() is not None
    figure.suptitle("of both")  # stays one picture
    assert len(re.findall(r"<svg", str(pages.drawing(figure, "x-", "one")))) == 1


def test_a_wide_figure_is_drawn_once_more_for_a_phone_and_stays_as_it_was() -> None:
    figure, axes = new_figure(width=7, height=4)
    axes.plot([1e9, 1e11], [3, 2])
    axes.set(xscale="log", title="a title that is far too long for a line of the narrow one", xlabel="compute")
    size = tuple(figure.get_size_inches())
    drawn = str(pages.drawing(figure, "x-", "one"))
    wide, narrow = (float(points) for points in re.findall(r"--points: (\d+)", drawn))
    assert narrow < 0.7 * wide
    assert drawn.count('class="panels wide"') == drawn.count('class="panels narrow"') == 1
    ids = re.findall(r' id="([^"]+)"', drawn)
    assert len(ids) == len(set(ids))
    assert tuple(figure.get_size_inches()) == size and "\n" not in axes.get_title(loc="left")


def test_figures_are_finished_once_their_legend_and_title_are_there(tmp_path: Path) -> None:
    figure, axes = new_figure()
    axes.plot([1e9, 3e10], [1, 2], label="loss")
    axes.set(xscale="log", title="loss")
    axes.legend()
    save_figure(figure, tmp_path / "loss")
    assert (axes.get_title(), axes.get_title(loc="left")) == ("", "loss")
    assert axes.get_legend().get_frame().get_linewidth() == 0
    assert [label.get_text() for label in axes.get_xticklabels(minor=True) if label.get_text()] == []


MEASURE = """
const found = [];
for (const frame of document.querySelectorAll("iframe")) {
  const inside = frame.contentDocument, width = inside.documentElement.clientWidth;
  const cut = [...inside.querySelectorAll("body *")].filter((one) => {
    const box = one.getBoundingClientRect();
    return !one.closest(".skip, thead, svg *") && box.width && (box.right > width + 0.5 || box.left < -0.5);
  });
  const scrolled = [...inside.querySelectorAll(".scroll")].filter((one) => one.scrollWidth > one.clientWidth + 1);
  const across = inside.querySelector("thead").offsetWidth > 9;
  found.push([width, cut.concat(scrolled).map((one) => one.outerHTML.slice(0, 60)), across]);
}
document.title = JSON.stringify(found);
"""


@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
def test_nothing_is_cut_at_390_and_at_1280_pixels(facts: dict[str, Any], tmp_path: Path) -> None:
    """A page with every part, a table of many columns and long words among them."""
    wide = [f"column number {number}" for number in range(14)]
    long = "a-word-that-does-not-end-" * 5
    facts |= {"rows": [[long, 1.5, "0.123 to 0.456", long], ["legal", 2.0, "some sentences of text " * 9, "<b>"]]}
    page = render("test.html.j2", facts | {"wide": wide, "links": [ListedPage("a.html", "fit", long, long, WRITTEN)]})
    frames = "".join(f'<iframe width="{width}" height="900" src="page.html"></iframe>' for width in (390, 1280))
    (tmp_path / "page.html").write_text(page)
    (tmp_path / "all.html").write_text(f"{frames}<script>onload = () => {{{MEASURE}}}</script>")
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=9000", "--dump-dom",
        (tmp_path / "all.html").as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    [title] = re.findall(r"<title>(.*?)</title>", shown, re.DOTALL)
    narrow, broad = json.loads(html.unescape(title))
    assert narrow == [390, [], False] and broad == [1280, [], True]


def test_every_page_says_its_kind_and_is_made_of_the_parts() -> None:
    """What `maquette report` sorts pages by, and what keeps them readable at every width."""
    folder = Path(pages.__file__).parent / "templates"
    texts = {path.name: path.read_text() for path in folder.glob("*.html.j2")}
    whole = {name: text for name, text in texts.items() if '{% extends "page.html.j2" %}' in text}
    assert len(whole) > 15
    known = {kind for kinds in SECTIONS.values() for kind in kinds} | {"report"}
    for name, text in whole.items():
        [kind] = re.findall(r"{% block kind %}(.*?){% endblock %}", text)
        assert kind in known or "{{" in kind, name
        assert "<table" not in text and "<svg" not in text, f"{name}: use parts.table and parts.picture"


def test_of_very_many_rows_all_but_the_first_are_folded_away() -> None:
    facts = {"n": 41}
    own = pages.environment()
    template = own.from_string(
        '{% import "parts.html.j2" as parts with context %}'
        '{% set rows = [] %}{% for row in range(n) %}{% do rows.append(("r%d" % row, row)) %}{% endfor %}'
        '{{ parts.table(("name", "value"), rows, caption="Rows") }}'
    )
    folded = template.render(page=pages._Contents(), **facts)
    shown, _, rest = folded.partition("<details><summary>16 more</summary>")
    assert shown.count('role="rowheader"') == 25 and rest.count('role="rowheader"') == 16
    assert folded.count("<caption>") == 1
    assert "<details>" not in template.render(page=pages._Contents(), n=40)


@pytest.mark.parametrize(("count", "columns"), [(3, 3), (6, 6), (7, 4), (9, 5), (13, 5)])
def test_numbers_at_a_glance_stand_in_rows_of_one_length(count: int, columns: int) -> None:
    template = pages.environment().from_string(
        '{% import "parts.html.j2" as parts with context %}{{ parts.numbers([("a", 1)] * n) }}'
    )
    assert f"--columns: {columns}" in template.render(page=pages._Contents(), n=count)
