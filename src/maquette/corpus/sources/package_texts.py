"""What a package says: a module's code without docstrings and its docstrings without code, the package's description
(the README of its index page) and its licences.
"""

import ast
import dataclasses
import importlib.metadata
import inspect
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

from maquette.corpus.document import Document

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True, slots=True)
class ModuleText:
    """`code`: the source as it is formatted, less docstrings; `docs`: (qualified name, dedented docstring) in order."""

    code: str
    docs: list[tuple[str, str]]


def part(source: bytes, name: str = "") -> ModuleText:
    """Parts the source of the module `name`. The code parses to the same program without docstrings.

    A docstring on lines of its own goes with its lines (and with the blank ones after it); one that is all there is
    of a body, or shares a line with code, becomes `...`.
    Raises `SyntaxError` (also for a wrong encoding), `ValueError` (null bytes) or `RecursionError` where Python can't
    read the source.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    try:
        text = source.decode(encoding)
    except UnicodeDecodeError as error:
        raise SyntaxError(str(error)) from None
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\f", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's strings
        tree = ast.parse(text)
    lines: list[bytes | None] = [*text.encode().split(b"\n")]
    docs: list[tuple[str, str]] = []
    for node, qualified_name in _documented(tree):
        first = node.body[0] if node.body else None
        if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant):
            continue
        if isinstance(first.value.value, str):
            docs.append((qualified_name or name, inspect.cleandoc(first.value.value)))
            _remove(lines, first, alone=len(node.body) == 1 and not isinstance(node, ast.Module))
    return ModuleText(b"\n".join(line for line in lines if line is not None).decode(), docs)


def _documented(node: ast.AST, name: str = "") -> Iterator[tuple[_Documented, str]]:
    """The module, its classes and functions with their qualified names, in the order of the text.

    Looks into statements only, never into expressions: many times faster than `ast.walk`.
    """
    if isinstance(node, _Documented):
        yield node, name
    for child in (one for value in vars(node).values() if isinstance(value, list) for one in value):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _documented(child, f"{name}.{child.name}".lstrip("."))
        elif isinstance(child, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            yield from _documented(child, name)


def _remove(lines: list[bytes | None], statement: ast.Expr, *, alone: bool) -> None:
    """Takes one docstring out of `lines` (UTF-8, changed in place; lines that go become None)."""
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    before = (lines[first] or b"")[: statement.col_offset]
    after = (lines[last] or b"")[statement.end_col_offset :]
    if alone or before.strip() or after.strip():
        lines[first] = before + b"..." + after
        start = first + 1
    else:
        start = first
        while last + 1 < len(lines) and not (lines[last + 1] or b"").strip():
            last += 1
    for number in range(start, last + 1):
        lines[number] = None


_LICENSE = re.compile(r"(?i)(licen[cs]e|copying|copyright|notice)")
_LONGEST_NAME = 3  # parts of a path below the licence folder that name a group: third_party/NAME

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_DIRECTIVE = re.compile(  # with its indented options, after blank lines too
    r"(?m)^\.\. (?:\|[^|\n]+\| )?(?:image|figure|raw|contents|target-notes)::.*\n(?:[ \t]+\S.*\n|[ \t]*\n(?=[ \t]+\S))*"
)
_TARGET = r"(?:\([^)\n]*\)|\[[^\]\n]*\])"
_PICTURE = rf"!\[[^\]\n]*\]{_TARGET}"
_BADGE = re.compile(rf"\[{_PICTURE}\]{_TARGET}|{_PICTURE}")
_TAG = re.compile(
    r"</?(?:a|b|br|center|code|dd|details|div|dl|dt|em|h[1-6]|hr|i|img|kbd|li|ol|p|picture|pre|small|source|span|strong"
    r"|sub|summary|sup|svg|table|tbody|td|th|thead|tr|tt|u|ul|video)\b[^>]*>",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"(?m)^[ \t]*(?:\[[^\]\n]+\]:|\.\. _[^\n]+:)[ \t]*(?:<?https?://\S+)?[ \t]*$\n?")
_SUBSTITUTIONS = re.compile(r"(?m)^[ \t]*(?:\|[\w .-]+\|_{0,2}[ \t]*)+$\n?")
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n){2,}")


def description(name: str, distribution: importlib.metadata.Distribution) -> Iterator[Document]:
    """The package's description, without badges, pictures and HTML."""
    metadata = distribution.metadata
    payload = ("Description" in metadata and metadata["Description"]) or getattr(metadata, "get_payload", lambda: "")()
    if isinstance(payload, str) and payload.strip():
        meta = {"group": name, "package": name}
        yield Document(f"{name}/readme", readable(payload), None, "readme", meta)


def licenses(name: str, distribution: importlib.metadata.Distribution) -> Iterator[Document]:
    """The licence texts that come with the package, its own and those of what it contains."""
    texts = [
        file
        for file in distribution.files or []
        if any(part.endswith(".dist-info") for part in file.parts) and _LICENSE.search(file.name)
    ]
    for file in sorted(texts, key=lambda file: file.as_posix()):
        below = file.parts[1:] if file.parts[0].endswith(".dist-info") else file.parts
        try:
            text = Path(str(distribution.locate_file(file))).read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        meta = {"group": "/".join([name, *below[1:-1]][:_LONGEST_NAME]), "package": name}
        yield Document(f"{name}/{'/'.join(below)}", text, None, "legal", meta)


def readable(text: str) -> str:
    """A README as a reader sees it: no badges, pictures, comments, HTML tags or lists of link targets."""
    text = text.replace("\r\n", "\n") + "\n"
    for pattern in (_COMMENT, _DIRECTIVE, _BADGE, _TAG, _REFERENCE, _SUBSTITUTIONS):
        text = pattern.sub("", text)
    return _BLANK_LINES.sub("\n\n", text).strip()
