"""Steps that look at one document alone: each gives back the document, changed or not, or says why it is rejected."""

import dataclasses
import re
from collections.abc import Callable

from maquette.corpus.document import Document

_CONTROL = bytes({*range(32), 127} - {ord("\n"), ord("\t")})
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """Why a document is not kept: the rule's name, and the value it was judged by."""

    document: Document
    reason: str
    value: float


Step = Callable[[Document], "Document | Rejection"]


def normalize(document: Document) -> Document | Rejection:
    """One kind of line end, no trailing spaces, no control characters; lone surrogates become U+FFFD."""
    text = document.text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) != len(text) or len(encoded.translate(None, _CONTROL)) != len(encoded):
        text = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", text))
    text = text.rstrip()
    if " \n" in text or "\t\n" in text:
        text = "\n".join(line.rstrip() for line in text.split("\n"))
    text = text.strip("\n")
    return document if text == document.text else dataclasses.replace(document, text=text)


def at_least(characters: int) -> Step:
    """A step that rejects documents with fewer than `characters` characters."""

    def long_enough(document: Document) -> Document | Rejection:
        size = len(document.text)
        return document if size >= characters else Rejection(document, "too short", size)

    return long_enough


def clean(document: Document, steps: list[Step]) -> Document | Rejection:
    """The document after all `steps`, or the first rejection."""
    for step in steps:
        result = step(document)
        if isinstance(result, Rejection):
            return result
        document = result
    return document
