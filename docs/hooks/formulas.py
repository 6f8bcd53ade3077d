"""Formulas in LaTeX become MathML, which browsers draw themselves: no script, no font, no network.

In pages of docs/ a formula is a block with the language `math`, as the repository's host draws it, too; in notebooks it
stands between dollars. Markdown must not read it, so it waits in an attribute until the page is HTML.
"""

import re
from urllib.parse import quote, unquote

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DOLLARS = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
_HELD = re.compile(r'<span class="formula" data-(block|inline)="([^"]*)"></span>')


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts formulas where Markdown leaves them alone."""
    if not page.file.src_uri.endswith(".ipynb.md"):
        return _BLOCK.sub(lambda match: f"{_held('block', match[1])}\n", markdown)
    parts = _CODE.split(markdown)  # text and code by turns
    parts[::2] = [_DOLLARS.sub(_between_dollars, part) for part in parts[::2]]
    return "".join(parts)


def _between_dollars(match: re.Match[str]) -> str:
    return _held("block", match[1]) if match[1] else _held("inline", match[2])


def _held(kind: str, latex: str) -> str:
    return f'<span class="formula" data-{kind}="{quote(latex.strip())}"></span>'


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Writes formulas as MathML."""
    return _HELD.sub(lambda match: convert(unquote(match[2]), display=match[1]), html)
