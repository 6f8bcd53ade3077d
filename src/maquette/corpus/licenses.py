"""Licences of documents: found in packages' metadata or the documents' own, as SPDX expressions, and a filter by them.

A document's licence is its `meta["license"]`, else that of its `meta["package"]`; a package's stands in its metadata as
`License-Expression` (PEP 639), and in older ones in words or classifiers, of which the common ones are known here.
What nobody has said is `unknown`, never guessed from the text.
"""

import importlib.metadata
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import nearest
from maquette.corpus.document import Document

UNKNOWN = "unknown"

PERMISSIVE, WEAK_COPYLEFT, COPYLEFT = "permissive", "weak_copyleft", "copyleft"
CLASSES = _STRICTNESS = (PERMISSIVE, WEAK_COPYLEFT, COPYLEFT, UNKNOWN)

_BEGINNINGS = {
    COPYLEFT: ("GPL-", "AGPL-", "CC-BY-SA-", "CC-BY-NC-SA-", "OSL-", "EUPL-"),
    WEAK_COPYLEFT: ("LGPL-", "MPL-", "EPL-", "CDDL-"),
    PERMISSIVE: (
        "MIT", "BSD-", "0BSD", "Apache-", "ISC", "Zlib", "PSF-", "Python-", "BSL-1.0", "CC0-", "Unlicense", "HPND",
        "CC-BY-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "NCSA", "X11", "W3C", "WTFPL", "Unicode-",
    ),
}  # fmt: skip
"""Beginnings of SPDX identifiers by what they ask of one who passes text on."""

_WORDS = {
    "mit": "MIT", "mit license": "MIT", "apache 2.0": "Apache-2.0", "apache-2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "apache license, version 2.0": "Apache-2.0", "apache software license":
    "Apache-2.0", "bsd": "BSD-3-Clause", "bsd license": "BSD-3-Clause", "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause", "new bsd": "BSD-3-Clause", "bsd 3-clause license": "BSD-3-Clause",
    "isc license (iscl)": "ISC", "python software foundation license": "PSF-2.0", "psf": "PSF-2.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0", "the unlicense (unlicense)": "Unlicense",
    "gnu general public license v2 (gplv2)": "GPL-2.0-only", "gnu general public license v3 (gplv3)": "GPL-3.0-only",
    "gnu lesser general public license v3 (lgplv3)": "LGPL-3.0-only", "zope public license": "ZPL-2.1",
}  # fmt: skip
"""What older metadata says in words."""

_PART = re.compile(r"\(|\)|[^\s()]+")
_EXPRESSION = re.compile(r"\(*[A-Za-z0-9.+-]+\)*( (AND|OR|WITH) \(*[A-Za-z0-9.+-]+\)*)*")


def package_license(metadata: importlib.metadata.PackageMetadata) -> str:
    """A package's licence as an SPDX expression, by its metadata; `unknown` where that says none that is known. Several
    classifiers are taken together (AND), as nothing says that one may choose."""
    texts = [metadata[name] for name in ("License-Expression", "License") if name in metadata]
    for text in texts:
        words = " ".join(text.split())
        if words.lower() in _WORDS:
            return _WORDS[words.lower()]
        if _EXPRESSION.fullmatch(words) and all(_class_of(one) != UNKNOWN for one in identifiers(words)):
            return words
    classifiers = [text.rpartition(" :: ")[2].lower() for text in metadata.get_all("Classifier") or ()
                   if text.startswith("License ::")]  # fmt: skip
    known = list(dict.fromkeys(_WORDS[text] for text in classifiers if text in _WORDS))
    return " AND ".join(known) or UNKNOWN


def license_of(document: Document, packages: Mapping[str, str]) -> str:
    """A document's licence; `packages`: that of every package."""
    return str(document.meta.get("license") or packages.get(str(document.meta.get("package")), UNKNOWN))


def identifiers(expression: str) -> list[str]:
    """The licences in an expression, without their exceptions."""
    words = [part for part in _PART.findall(expression) if part not in "()"]
    return [
        word
        for place, word in enumerate(words)
        if word not in ("AND", "OR", "WITH") and (place == 0 or words[place - 1] != "WITH")
    ]


def _class_of(identifier: str) -> str:
    for name, beginnings in _BEGINNINGS.items():
        if identifier.startswith(beginnings):
            return name
    return UNKNOWN


def license_class(expression: str) -> str:
    """`permissive`, `weak_copyleft` or `copyleft`: the strictest that one has to follow, of OR the freest; `unknown`
    where one of them is."""
    return _STRICTNESS[_evaluate(expression, lambda one: _STRICTNESS.index(_class_of(one)), max, min)]


def is_allowed(expression: str, allowed: Sequence[str]) -> bool:
    """Whether text under the expression may be kept, where `allowed` are identifiers and classes: of OR one is enough,
    of AND all must be."""
    return bool(_evaluate(expression, lambda one: int(one in allowed or _class_of(one) in allowed), min, max))


def _evaluate(
    expression: str,
    value: Callable[[str], int],
    of_and: Callable[[list[int]], int],
    of_or: Callable[[list[int]], int],
) -> int:
    """What an expression comes to from its identifiers; AND binds closer than OR (SPDX specification, annex D)."""
    parts = list(reversed(_PART.findall(expression)))

    def alternatives() -> int:
        values = [together()]
        while parts and parts[-1] == "OR":
            parts.pop()
            values.append(together())
        return of_or(values)

    def together() -> int:
        values = [single()]
        while parts and parts[-1] not in ("OR", ")"):
            if parts[-1] == "AND":
                parts.pop()
            values.append(single())
        return of_and(values)

    def single() -> int:
        part = parts.pop() if parts else UNKNOWN
        if part == "(":
            inner = alternatives()
            del parts[-1:]  # the closing one
            return inner
        if parts and parts[-1] == "WITH":
            del parts[-2:]
        return value(part)

    return alternatives()


def check_licenses(allowed: Sequence[str]) -> None:
    """Raises `ConfigError` for what is neither a class nor an SPDX identifier that is known here."""
    for name in allowed:
        if name not in CLASSES and _class_of(name) == UNKNOWN:
            close = nearest(name, [*CLASSES, *_WORDS.values()])
            raise ConfigError(
                f"corpus.licenses={name} is no licence that is known.",
                (f"Did you mean {close}? " if close else "")
                + f"Give {', '.join(CLASSES)}, or SPDX identifiers such as MIT and Apache-2.0.",
            )


def filtered(
    documents: Iterable[Document], allowed: Sequence[str], packages: Mapping[str, str], dropped: Counter[str]
) -> Iterator[Document]:
    """The documents under a licence that is allowed; the others are counted by theirs in `dropped`."""
    for document in documents:
        expression = license_of(document, packages)
        if is_allowed(expression, allowed):
            yield document
        else:
            dropped[expression] += 1
