"""A page's SVG drawing stands in the page itself, so that its colours follow the light or dark scheme."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_DRAWING = re.compile(r'<img alt="([^"]*)" src="(drawings/[\w-]+\.svg)"\s*/?>')


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replaces `![alt](drawings/NAME.svg)` by the drawing, with `alt` as its label."""
    folder = Path(config.docs_dir, page.file.src_uri).parent

    def drawing(match: re.Match[str]) -> str:
        svg = (folder / match[2]).read_text(encoding="utf-8")
        return svg.replace("<svg ", f'<svg aria-label="{match[1]}" ', 1)

    return _DRAWING.sub(drawing, html)
