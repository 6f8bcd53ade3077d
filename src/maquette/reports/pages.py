"""Pages and cards from templates: `render("leaderboard.html.j2", {"boards": boards})`.

A page is one self-contained HTML file with figures, tables and code that opens offline, in light and dark; cards and
short reports are Markdown. Whatever a page is given is escaped; where a template says `marked`, `code`, **bold** and
[links](address) are read in it, and nothing else is.
"""

import base64
import functools
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maquette.artifacts.files import write_text
from maquette.artifacts.progress import duration, progress
from maquette.reports.figures import finish, narrowed, save_figure
from maquette.reports.tables import cell, coefficient, estimate, filename, p_value, quantity, span, tabulate, times

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
_BLACK = re.compile(r"(fill|stroke): ?(?:#000000|#000|black|#1a1a1a|#333333|#4d4d4d)\b")
"""Black and the greys .1 to .3, which nobody sees on a dark ground."""
_WHITE = re.compile(r"(fill|stroke): ?(?:#ffffff|#fff|white)\b")
_MARKUP = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>.+?)\*\*|\[(?P<label>[^\]]+)\]\((?P<address>[^)\s]+)\)")
_SAFE_ADDRESS = re.compile(r"(https?:|file:|#|(?![a-z][a-z0-9+.-]*:))", re.IGNORECASE)


def render(template: str, facts: Mapping[str, Any]) -> str:
    """The text of a template of this package (`NAME.html.j2` is escaped, `NAME.md.j2` is not), filled from `facts`.

    Raises `jinja2.UndefinedError` where the template names something that it was not given.
    """
    return environment().get_template(template).render(page=_Contents(), **facts)


def write_page(
    folder: Path,
    template: str,
    facts: Mapping[str, Any],
    figures: "Mapping[str, Figure] | None" = None,
    name: str = "index.html",
) -> Path:
    """Writes a page as `folder`/`name`, with `figures` for its template, and those as PNG and SVG into
    `folder`/figures. Returns the page's path."""
    figures = figures or {}
    with progress("drawing", len(figures), unit="figures") as advance:
        for figure in figures:
            save_figure(figures[figure], folder / "figures" / figure)
            advance(1)
    write_text(folder / name, render(template, {"figures": figures, **facts}))
    return folder / name


def is_current(page: Path, sources: Iterable[Path]) -> bool:
    """Whether a page exists and is not older than any of the files that it was made from."""
    return page.exists() and all(path.stat().st_mtime <= page.stat().st_mtime for path in sources if path.exists())


@functools.cache
def environment() -> "Environment":
    """Jinja's environment with this package's templates, filters and functions."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("maquette.reports"),
        autoescape=jinja2.select_autoescape(("html", "html.j2"), default=False, default_for_string=True),
        extensions=["jinja2.ext.do"],
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"cell": cell, "duration": duration, "fmt": format, "marked": marked, "quantity": quantity}
    templates.filters |= {"estimate": estimate, "repr": repr, "span": span}
    templates.filters |= {"coefficient": coefficient, "filename": filename, "times": times, "p_value": p_value}
    templates.globals |= {"drawing": drawing, "tabulate": tabulate}
    return templates


@dataclass
class _Contents:
    """What the parts of one page have to know of each other."""

    sections: list[str] = field(default_factory=list)
    pictures: int = 0
    table_widths: set[float] = field(default_factory=set)

    def begin(self, title: str) -> str:
        """A section begins: its anchor, for the page's contents."""
        self.sections.append(title)
        return f"part-{len(self.sections)}"

    def next_picture(self) -> str:
        """What the ids in the next picture begin with."""
        self.pictures += 1
        return f"picture{self.pictures}-"


def marked(text: Any) -> "Markup":
    """Escaped text with its code, bold and links. Addresses that would run something are left as text."""
    from markupsafe import Markup, escape

    text, parts, end = str(text), [], 0
    for match in _MARKUP.finditer(text):
        parts.append(escape(text[end : match.start()]))
        end = match.end()
        if match["code"]:
            parts.append(Markup("<code>{}</code>").format(match["code"]))
        elif match["bold"]:
            parts.append(Markup("<strong>{}</strong>").format(marked(match["bold"])))
        elif _SAFE_ADDRESS.match(match["address"]):
            parts.append(Markup('<a href="{}">{}</a>').format(match["address"], match["label"]))
        else:
            parts.append(escape(match[0]))
    return Markup("").join([*parts, escape(text[end:])])


# Pictures


def drawing(image: "Figure | Path", prefix: str, description: str) -> "Markup":
    """A picture to stand inside a page: a figure of matplotlib is drawn in the page's colours, with its text as text,
    its panels beside each other where the window is wide enough and else below, and once more for the width of a phone;
    an image file is taken in. The `description` says what it shows to those who can't see it."""
    from markupsafe import Markup

    if isinstance(image, Path):
        data = base64.b64encode(image.read_bytes()).decode()
        return Markup('<img alt="{}" src="data:{};base64,{}">').format(description, _TYPES[image.suffix.lower()], data)
    finish(image)
    drawings = {"": _panels(image)}
    with narrowed(image) as shrunk:
        if shrunk:
            drawings = {" wide": drawings[""], " narrow": _panels(image)}
    return Markup("").join(
        Markup('<div class="panels{}" role="img" aria-label="{}">{}</div>').format(
            suffix, description, _inlined(panels, prefix + suffix.strip())
        )
        for suffix, panels in drawings.items()
    )


def _inlined(panels: list[str], prefix: str) -> "Markup":
    from markupsafe import Markup

    return Markup("").join(_inline(drawn, f"{prefix}{number}-") for number, drawn in enumerate(panels))


def _inline(drawn: str, prefix: str) -> "Markup":
    """An SVG for the inside of a page: ids that occur once in it, and at most so wide that its text is not larger than
    the page's."""
    from markupsafe import Markup

    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", drawn))
    drawn = re.sub(r' id="([^"]+)"', lambda match: f' id="{prefix}{match[1]}"' if match[1] in used else "", drawn)
    drawn = re.sub(r"(url\(|href=\")#", rf"\1#{prefix}", drawn)
    box = re.search(r'viewBox="\S+ \S+ (\S+) [^"]+"', drawn)
    assert box is not None  # matplotlib always writes one
    opening = Markup('<svg xmlns:xlink="http://www.w3.org/1999/xlink" {} style="--points: {:.0f}">')
    # matplotlib escapes the texts in a drawing
    return opening.format(Markup(box[0]), float(box[1])) + Markup(drawn[drawn.index(">") + 1 :].strip())


def _panels(figure: "Figure") -> list[str]:
    """A figure's panels as SVGs: its axes one by one, with what stands in the same place; the whole of a figure where
    something belongs to several panels, such as a legend."""
    places: dict[Any, list[Axes]] = {}
    for axes in figure.axes:
        spec = axes.get_subplotspec()
        places.setdefault(None if spec is None else spec.get_topmost_subplotspec().num1, []).append(axes)
    if len(places) < 2 or None in places or figure.legends or figure.get_suptitle():
        return [_svg(figure)]
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")  # each panel stays where it is
    try:
        drawn = []
        for panel in places.values():
            for axes in figure.axes:
                axes.set_visible(axes in panel)
            around = Bbox.union([box for axes in panel if (box := axes.get_tightbbox()) is not None])
            drawn.append(_svg(figure, around.transformed(figure.dpi_scale_trans.inverted()).padded(0.04)))
        return drawn
    finally:
        figure.set_layout_engine(layout)
        for axes in figure.axes:
            axes.set_visible(True)


def _svg(figure: "Figure", part: "Bbox | None" = None) -> str:
    """A figure, or a `part` of it in inches, as SVG: text stays text, black and dark grey are the page's
    ink, white its ground."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "maquette"}):
        figure.savefig(
            buffer, format="svg", transparent=True, bbox_inches=part, metadata={"Date": None, "Creator": None}
        )
    drawn = buffer.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    return _WHITE.sub(r"\1: var(--ground)", _BLACK.sub(r"\1: currentColor", drawn))
