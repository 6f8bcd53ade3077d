"""Pages to look at: one self-contained HTML file with figures, tables and code, that opens offline, in light and dark.

Everything given to a `Page` is escaped. In texts, `code`, **bold** and [links](address) are read; nothing else is.
"""

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
_BLACK = re.compile(r"(fill|stroke): ?(?:#000000|#000|black)\b")
_MARKUP = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>.+?)\*\*|\[(?P<label>[^\]]+)\]\((?P<address>[^)\s]+)\)")
_SAFE_ADDRESS = re.compile(r"(https?:|file:|#|(?![a-z][a-z0-9+.-]*:))", re.IGNORECASE)


@dataclass(frozen=True)
class Fact:
    """A number to see at a glance: what it is, its value, and a few words on it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure of matplotlib (drawn inline, in the page's colours) or an image file, with its caption.

    `description` says what it shows to those who can't see it; by default the caption.
    """

    image: "Figure | Path"
    caption: str
    description: str = ""


class Page:
    """Builds a page from top to bottom: begin a `section`, add to it, `write` at the end."""

    def __init__(self, title: str, *, lead: str = "", eyebrow: str = "Maquette", footer: str = "") -> None:
        self.title, self.lead, self._eyebrow, self._footer = title, lead, eyebrow, footer
        self._sections: list[tuple[str, list[str]]] = []
        self._pictures = 0

    def section(self, title: str) -> None:
        """Begins a section; the page's contents list it."""
        self._sections.append((title, []))

    def heading(self, text: str) -> None:
        """A smaller heading within a section."""
        self._add(f"<h3>{_marked(text)}</h3>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._add(f"<p>{_marked(text)}</p>")

    def facts(self, facts: Sequence[Fact]) -> None:
        """A row of numbers to see at a glance."""
        cells = "".join(
            f"<div><dt>{_escaped(fact.label)}</dt><dd>{_escaped(fact.value)}"
            + (f"<small>{_marked(fact.note)}</small>" if fact.note else "")
            + "</dd></div>"
            for fact in facts
        )
        self._add(f'<dl class="facts">{cells}</dl>')

    def pictures(self, *pictures: Picture) -> None:
        """One picture, or several side by side where the window is wide enough."""
        drawn = "".join(self._drawn(picture) for picture in pictures)
        self._add(f'<div class="grid">{drawn}</div>' if len(pictures) > 1 else drawn)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        caption: str = "",
        best: str | None = None,
        compared: Sequence[str] = (),
    ) -> None:
        """A table whose first column names the rows. Numbers stand right; `best` (`min` or `max`) marks in each row
        the least or greatest number among the columns `compared` (by default all). A cell may be a `(number, text)`
        pair: shown as text, compared as a number."""
        head = "".join(
            f'<th scope="col"{_number_class(any(_is_number(row[i]) for row in rows))}>{_escaped(name)}</th>'
            for i, name in enumerate(columns)
        )
        rivals = [place for place, name in enumerate(columns) if place and (not compared or name in compared)]
        body = "".join(f"<tr>{_table_row(row, best, rivals)}</tr>" for row in rows)
        title = f"<caption>{_marked(caption)}</caption>" if caption else ""
        label = _escaped(caption or ", ".join(columns))
        self._add(
            f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>{title}'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def code(self, text: str) -> None:
        """Lines to read or copy, such as commands."""
        self._add(f"<pre><code>{_escaped(text)}</code></pre>")

    def samples(self, samples: Sequence[tuple[str, str, str]]) -> None:
        """What a model wrote: (prompt, continuation, caption) side by side where the window is wide enough."""
        drawn = "".join(
            f'<figure class="sample"><figcaption>{_marked(caption)}</figcaption>'
            f"<pre><code><mark>{_escaped(prompt)}</mark>{_escaped(continuation)}</code></pre></figure>"
            for prompt, continuation, caption in samples
        )
        self._add(f'<div class="grid">{drawn}</div>' if len(samples) > 1 else drawn)

    def pieces(self, texts: Sequence[tuple[str, Sequence[str]]]) -> None:
        """Texts cut into pieces (tokens), each piece on a ground of its own colour: (name, pieces) a line."""
        lines = "".join(
            f"<dt>{_marked(name)}</dt><dd><code>"
            + "".join(f"<span>{_escaped(piece)}</span>" for piece in pieces)
            + "</code></dd>"
            for name, pieces in texts
        )
        self._add(f'<figure><dl class="pieces">{lines}</dl></figure>')

    def render(self) -> str:
        """The page as HTML."""
        style = resources.files("maquette.reports").joinpath("templates/page.css").read_text(encoding="utf-8")
        anchors = [f"part-{number}" for number, _ in enumerate(self._sections, start=1)]
        titles = [title for title, _ in self._sections]
        links = "".join(
            f'<li><a href="#{anchor}">{_escaped(title)}</a></li>' for anchor, title in zip(anchors, titles, strict=True)
        )
        contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(titles) > 1 else ""
        sections = "\n".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-title"><h2 id="{anchor}-title">{_escaped(title)}</h2>\n'
            + "\n".join(parts)
            + "\n</section>"
            for anchor, (title, parts) in zip(anchors, self._sections, strict=True)
        )
        lead = f'<p class="lead">{_marked(self.lead)}</p>' if self.lead else ""
        footer = f"<footer><p>{_marked(self._footer)}</p></footer>" if self._footer else ""
        return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="maquette">
<title>{_escaped(self.title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><p class="eyebrow">{_escaped(self._eyebrow)}</p><h1>{_escaped(self.title)}</h1>{lead}{contents}</header>
<main id="content">
{sections}
</main>
{footer}
</body>
</html>
"""

    def write(self, path: Path | str) -> Path:
        """Writes the page atomically. Raises `StageError` where it can't be written."""
        write_text(path, self.render())
        return Path(path)

    def _add(self, part: str) -> None:
        if not self._sections:
            raise ValueError("begin a section first")
        self._sections[-1][1].append(part)

    def _drawn(self, picture: Picture) -> str:
        self._pictures += 1
        description = _escaped(picture.description or picture.caption)
        if isinstance(picture.image, Path):
            data = base64.b64encode(picture.image.read_bytes()).decode()
            kind = _TYPES[picture.image.suffix.lower()]
            drawn = f'<img alt="{description}" src="data:{kind};base64,{data}">'
        else:
            drawn = _inline_svg(picture.image, f"picture{self._pictures}-", description)
        return f"<figure>{drawn}<figcaption>{_marked(picture.caption)}</figcaption></figure>"


def _inline_svg(figure: "Figure", prefix: str, description: str) -> str:
    """A figure as SVG to stand inside a page: text stays text, black becomes the page's ink, ids are the page's own."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "maquette"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = _BLACK.sub(r"\1: currentColor", drawing)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", drawing))
    drawing = re.sub(r' id="([^"]+)"', lambda match: f' id="{prefix}{match[1]}"' if match[1] in used else "", drawing)
    drawing = re.sub(r"(url\(|href=\")#", rf"\1#{prefix}", drawing)
    box = re.search(r'viewBox="[^"]+"', drawing)
    assert box is not None  # matplotlib always writes one
    opening = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{description}">'
    return opening + drawing[drawing.index(">") + 1 :].strip()


def _table_row(row: Sequence[Any], best: str | None, rivals: Sequence[int]) -> str:
    numbers = [_number(cell) for cell in row]
    known = [number for place in rivals if (number := numbers[place]) is not None]
    chosen = (min if best == "min" else max)(known) if best and known else None
    cells = [f'<th scope="row">{_marked(_shown(row[0]))}</th>']
    for place in range(1, len(row)):
        wins = place in rivals and chosen is not None and numbers[place] == chosen
        style = "" if numbers[place] is None else ' class="number best"' if wins else ' class="number"'
        cells.append(f"<td{style}>{_marked(_shown(row[place]))}</td>")
    return "".join(cells)


def _shown(cell: Any) -> str:
    if isinstance(cell, tuple):
        return str(cell[1])
    if isinstance(cell, float):
        return f"{cell:,.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def _number(cell: Any) -> float | None:
    value = cell[0] if isinstance(cell, tuple) else cell
    return float(value) if isinstance(value, int | float) else None


def _is_number(cell: Any) -> bool:
    return _number(cell) is not None


def _number_class(is_number: bool) -> str:
    return ' class="number"' if is_number else ""


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)


def _marked(text: str) -> str:
    """Escaped text with its code, bold and links. Addresses that would run something are left as text."""
    parts, end = [], 0
    for match in _MARKUP.finditer(text):
        parts.append(_escaped(text[end : match.start()]))
        end = match.end()
        if match["code"]:
            parts.append(f"<code>{_escaped(match['code'])}</code>")
        elif match["bold"]:
            parts.append(f"<strong>{_marked(match['bold'])}</strong>")
        elif _SAFE_ADDRESS.match(match["address"]):
            parts.append(f'<a href="{_escaped(match["address"])}">{_escaped(match["label"])}</a>')
        else:
            parts.append(_escaped(match[0]))
    return "".join([*parts, _escaped(text[end:])])
