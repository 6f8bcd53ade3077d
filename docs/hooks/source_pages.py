"""A link of a page to the repository opens the file as a page of the site, at the line of a symbol.

    [`dpo_loss`](../src/maquette/objectives#dpo_loss)

names the package and the symbol; which file and line that is, is found when the site is built, so code may move within
its package without a change here, and to another one where the name is the only one of its kind. The site needs no
network and shows the lines that it was built with; where the Markdown is read in the repository the same link opens the
package. A folder's page is its README.md; Markdown and notebooks become pages with links of their own, a notebook with
the figures that are stored in it. Pictures and tables are copied as they are.
"""

import ast
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)(?:#([\w.]+))?\)")
_COPIED = {".png", ".svg", ".jpg", ".html", ".csv"}


def symbols(text: str) -> dict[str, int]:
    """The line of each function, class, method (`Class.method`) and module-level name of a Python file."""
    lines: dict[str, int] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                lines[prefix + node.name] = node.lineno
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            lines.update({prefix + target.id: node.lineno for target in targets if isinstance(target, ast.Name)})

    visit(ast.parse(text).body, "")
    return lines


def folder_of(page: str) -> Path:
    """The folder of the repository that a page's links start from; `page`: its path below docs/."""
    path = Path(page).parent
    return path.relative_to("source") if path.parts[:1] == ("source",) else "docs" / path


def repository_links(markdown: str, page: str) -> list[tuple[str, Path, str | None]]:
    """The links of a page that mkdocs does not know: as written, the file in the repository, the symbol."""
    links = []
    for match in _LINK.finditer(markdown):
        target = Path(os.path.normpath(folder_of(page) / match[2]))
        if page.startswith("source/") or target.parts[0] != "docs":
            links.append((match[0], target, match[3]))
    return links


def locate(place: Path, symbol: str) -> tuple[Path, int]:
    """The file and line where a symbol is defined: in `place`, a file or a folder of the repository, or else in the one
    file of src/ that has it. Raises `PluginError` where there is none, or more than one.
    """
    for where in (place, Path("src")):
        places = [(file, _symbols_of(file)[symbol]) for file in _python_files(where) if symbol in _symbols_of(file)]
        if len(places) == 1:
            return places[0]
        if places:
            raise PluginError(f"{symbol} is in {', '.join(str(file) for file, _ in places)}: name the file")
    raise PluginError(f"no {symbol} in {place} or elsewhere in src")


def _python_files(place: Path) -> list[Path]:
    path = ROOT / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.is_file() else []
    return [file.relative_to(ROOT) for file in files]


@functools.cache
def _symbols_of(file: Path) -> dict[str, int]:
    return symbols((ROOT / file).read_text(encoding="utf-8"))


def _is_code(place: Path, symbol: str | None) -> bool:
    """Whether a link is to a symbol of Python code; in Markdown what follows `#` is a heading."""
    return symbol is not None and place.suffix in ("", ".py")


def _readable(path: Path) -> Path:
    """The file that stands for a path. Raises `PluginError` where there is none."""
    if (ROOT / path).is_dir():
        path = path / "README.md"
    if not (ROOT / path).is_file():
        raise PluginError(f"no such file in the repository: {path}")
    return path


def _page_of(path: Path) -> str:
    """The page of a file: Markdown of docs/ has its own, other Markdown is a page too, code is shown in one."""
    if path.parts[0] == "docs":
        return str(path.relative_to("docs"))
    return f"source/{path}" if path.suffix in {".md", *_COPIED} else f"source/{path}.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page of each file that a page or the navigation links to, and of those that these link to in turn."""
    pages = list(files.documentation_pages())

    def add(target: Path) -> None:
        path = _readable(target)
        if files.get_file_from_path(_page_of(path)) is None:
            files.append(file := _file(path, config))
            pages.append(file)

    for entry in _entries(config.nav):
        if entry.startswith("source/"):
            path = Path(entry.removeprefix("source/"))
            add(path if (ROOT / path).exists() else path.with_suffix(""))
    for page in pages:
        if not _shows_code(page.src_uri):
            for _, target, symbol in repository_links(page.content_string, page.src_uri):
                add(locate(target, symbol)[0] if _is_code(target, symbol) else target)
    return files


def _entries(nav: Any) -> Iterator[str]:
    """The pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _entries(entry)


def _file(path: Path, config: MkDocsConfig) -> File:
    where, hidden = _page_of(path), InclusionLevel.NOT_IN_NAV
    if path.suffix in {".md", *_COPIED}:
        return File.generated(config, where, abs_src_path=str(ROOT / path), inclusion=hidden)
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return File.generated(config, where, content="\n".join(_cells(json.loads(text))), inclusion=hidden)
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    code = highlight(text, lexer, HtmlFormatter(cssclass="highlight", linespans="line", wrapcode=True))
    header = f"---\ntitle: {path.name}\nsearch: {{exclude: true}}\nhide: [navigation, toc]\n---\n\n# {path}\n\n"
    return File.generated(config, where, content=f"{header}{code}\n", inclusion=hidden)


def _cells(notebook: dict[str, Any]) -> Iterator[str]:
    """A notebook as Markdown: its text, its code, and the output that is stored in it."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        yield f"{text}\n" if cell["cell_type"] == "markdown" else f"```python\n{text}\n```\n"
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if picture := data.get("image/png"):
                yield f'<img alt="Figure drawn by the code above" src="data:image/png;base64,{picture.strip()}">\n'
            elif table := data.get("text/html"):
                html = re.sub(
                    r"<style.*?</style>| class=\"dataframe\"| border=\"1\"", "", "".join(table), flags=re.DOTALL
                )
                yield f"<div>{html}</div>\n"
            else:
                yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points the links to files of the repository to their pages."""
    source = page.file.src_uri
    if _shows_code(source):
        return markdown
    for written, target, symbol in repository_links(markdown, source):
        anchor = symbol
        if _is_code(target, symbol):
            target, line = locate(target, symbol)
            anchor = f"line-{line}"
        place = os.path.relpath(_page_of(_readable(target)), Path(source).parent)
        markdown = markdown.replace(written, f"]({place}#{anchor})" if anchor else f"]({place})")
    return markdown


def _shows_code(page: str) -> bool:
    """Whether a page is a file of the repository that is no Markdown: its links are none of the site's."""
    own = page.endswith(".ipynb.md") or (page.endswith(".md") and (ROOT / page.removeprefix("source/")).is_file())
    return page.startswith("source/") and not own
