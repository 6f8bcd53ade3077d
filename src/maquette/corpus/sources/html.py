"""HTML to text: the main content, with code as it stands and formulas as TeX.

Resiliparse finds the main content and keeps the layout; before it the encoding is sniffed and formulas are replaced
by their TeX, after it the title and the addresses that the page links to are at hand. `trafilatura` is slower by more
than an order of magnitude and may find the main content of unusual pages better.
"""

import dataclasses
import html
import re
from typing import Any

from maquette.corpus.sources import needed

_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_META = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w:.-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w:.-]{2,40})["']""", re.IGNORECASE)
_DECLARATION = re.compile(r"^\s*<\?xml[^>]{0,300}\?>")

_MATHML = re.compile(r"<math\b[^>]*>.*?</math\s*>", re.IGNORECASE | re.DOTALL)
_ANNOTATION = re.compile(r"<annotation[^>]*?x-tex[^>]*>(.*?)</annotation\s*>", re.IGNORECASE | re.DOTALL)
_ALT = re.compile(r"""\balttext\s*=\s*("[^"]*"|'[^']*')""", re.IGNORECASE)
_TEX_SCRIPT = re.compile(
    r"""<script[^>]*?type\s*=\s*["']math/tex(;\s*mode=display)?["'][^>]*>(.*?)</script\s*>""",
    re.IGNORECASE | re.DOTALL,
)
_DISPLAY = re.compile(r"""^<math\b[^>]*?display\s*=\s*["']?block""", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.{0,400}?)</title", re.IGNORECASE | re.DOTALL)
_LINK = re.compile(r"""<a\s[^>]{0,500}?href\s*=\s*["']?(https?://[^"'\s>]{1,2000})""", re.IGNORECASE)

_RENDERED_TWICE = [".katex-html", ".MathJax_Preview", ".MathJax", ".mwe-math-fallback-image-inline"]
"""What formulas are drawn with, beside their source."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extract:
    """A page's main text and its title."""

    text: str
    title: str


def decode(body: bytes, declared: str = "") -> str:
    """The characters of a page. In this order are believed: a byte order mark, bytes that are valid UTF-8, the
    encoding that the HTTP header or the page itself declares, and what the bytes look like."""
    for mark, name in _BOMS:
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        pass
    match = _XML.search(body[:1024]) or _META.search(body[:4096])
    for name in (declared, match[1].decode("ascii", "replace") if match else ""):
        if name and name.lower() not in ("utf-8", "utf8"):
            try:
                return body.decode("cp1252" if name.lower() in ("iso-8859-1", "latin-1", "latin1") else name, "replace")
            except (LookupError, ValueError):
                continue
    from resiliparse.parse.encoding import detect_encoding

    # Where what is declared is UTF-8 and a few bytes are not, it is UTF-8 with a few broken characters.
    text = body.decode("utf-8", "replace")
    if text.count("\ufffd") <= len(text) // 2000:
        return text
    try:
        return body.decode(detect_encoding(body[: 1 << 16]) or "cp1252", "replace")
    except (LookupError, ValueError):
        return body.decode("cp1252", "replace")


def keep_tex(source: str) -> str:
    """HTML in which MathML and TeX scripts are replaced by their TeX between dollar signs."""
    if "math" not in source and "MATH" not in source:
        return source
    source = _TEX_SCRIPT.sub(lambda match: _dollars(match[2], display=bool(match[1])), source)
    return _MATHML.sub(_formula, source)


def _formula(match: re.Match[str]) -> str:
    whole = match[0]
    tex = _ANNOTATION.search(whole)
    if tex:
        return _dollars(tex[1], display=bool(_DISPLAY.match(whole)))
    alternative = _ALT.search(whole)
    return _dollars(alternative[1][1:-1], display=bool(_DISPLAY.match(whole))) if alternative else whole


def _dollars(tex: str, *, display: bool) -> str:
    tex = tex.strip().removeprefix("<![CDATA[").removesuffix("]]>").strip()
    if tex.startswith(r"{\displaystyle") and tex.endswith("}"):
        tex = tex[len(r"{\displaystyle") : -1].strip()
    if "<" in tex or ">" in tex:
        tex = html.escape(html.unescape(tex), quote=False)
    return f" $${tex}$$ " if display else f" ${tex}$ "


def extract(source: str, extractor: str = "resiliparse") -> Extract:
    """The main text of a page given as characters; empty where there is none."""
    source = keep_tex(source)
    match = _TITLE.search(source, 0, 20_000)
    title = " ".join(html.unescape(match[1]).split()) if match else ""
    return Extract(_trafilatura(source) if extractor == "trafilatura" else _resiliparse(source), title)


def links(source: str) -> list[str]:
    """The absolute addresses that a page links to, in order."""
    return [html.unescape(address) for address in _LINK.findall(source)]


def _resiliparse(source: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(
        extract_plain_text(
            source.replace("\0", ""),
            main_content=True,
            preserve_formatting=True,
            alt_texts=False,
            skip_elements=_RENDERED_TWICE if "ath" in source or "katex" in source else None,
        )
    )


def _trafilatura(source: str) -> str:
    source = _DECLARATION.sub("", source)  # lxml refuses text that declares an encoding
    trafilatura: Any = needed("trafilatura", "source.extractor=trafilatura")
    return trafilatura.extract(source, include_comments=False, favor_recall=True) or ""
