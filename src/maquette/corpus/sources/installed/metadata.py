"""What a package says of itself besides code: its description (the README of its index page) and its licences."""

import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

from maquette.corpus.document import Document

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
    payload = metadata["Description"] or getattr(metadata, "get_payload", lambda: "")()
    if isinstance(payload, str) and payload.strip():
        meta = {"group": name, "package": name}
        yield Document(f"{name}/readme", readable(payload), None, "readme", meta)


def licenses(name: str, distribution: importlib.metadata.Distribution) -> Iterator[Document]:
    """The licence texts that come with the package, its own and those of what it contains."""
    found = [
        file
        for file in distribution.files or []
        if any(part.endswith(".dist-info") for part in file.parts) and _LICENSE.search(file.name)
    ]
    for file in sorted(found, key=lambda file: file.as_posix()):
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
