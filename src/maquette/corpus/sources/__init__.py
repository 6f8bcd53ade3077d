"""Where documents come from: each source gives documents in a stable order, and knows nothing of what follows."""

import hashlib
import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import listed
from maquette.artifacts.progress import say
from maquette.artifacts.reading import short
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document
from maquette.corpus.workers import Workers, workers

_SOURCES = {
    "installed": ("installed", "Installed"),
    "jsonl": ("rows", "JsonLines"),
    "parquet": ("rows", "Parquet"),
    "text": ("rows", "TextFiles"),
    "huggingface": ("rows", "HuggingFace"),
    "warc": ("warc", "Warc"),
}
"""Module and class of each `source.kind`."""


class Source(Protocol):
    """Gives documents in a stable order. `label` names what is made from it."""

    label: str

    def inputs(self) -> dict[str, str]:
        """Digests of what will be read, by which a change is noticed; empty where the first reading is to last."""

    def documents(self, workers: Workers) -> Iterator[Document]:
        """Reads; shows progress. Raises `StageError` naming the file, line and field that can't be read."""

    def facts(self) -> dict[str, Any]:
        """What was read, for the manifest. Complete once `documents` is exhausted."""


def open_source(config: SourceConfig) -> Source:
    """The source that a config asks for. Raises `StageError` where its path or its package is missing."""
    module, name = _SOURCES[config.kind]
    source: Source = getattr(importlib.import_module(f"{__name__}.{module}"), name)(config)
    return source


def read_examples(path: str, key: str) -> list[Document]:
    """The documents of a JSONL or Parquet file, or of a folder of them, that the setting `key` names.

    Raises `StageError` that names the setting where they can't be read.
    """
    kind = "parquet" if path.endswith((".parquet", ".pq")) or listed(path, "**/*.parquet") else "jsonl"
    try:
        with workers(1) as pool:
            return list(open_source(SourceConfig(kind=kind, path=path)).documents(pool))
    except StageError as error:
        raise StageError(error.message, f"Check {key}. {error.hint}") from None


def needed(name: str, what: str, otherwise: str = "") -> ModuleType:
    """A module of an optional package. Raises `StageError` where it is not installed; `what` needs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise StageError(
            f"{what} needs the package {(error.name or name).partition('.')[0]}.",
            f'Install it with: pip install "maquette-lm[curation]"{otherwise}.',
        ) from None


def columns_read(config: SourceConfig) -> set[str]:
    """The columns that make a document."""
    return {config.text_field, config.domain_field or "", config.license_field or "", "id", "url", "meta"}


def say_unread(columns: Iterable[str], path: Path | str) -> None:
    """Names the columns that nothing reads, once."""
    if columns := sorted(map(str, columns)):
        say(f"{path}: columns not read: {short(', '.join(columns))}")


def document_from_row(row: Mapping[str, Any], config: SourceConfig, where: str) -> Document:
    """A document from a row with `id`, `text`, `url`, `domain`, `meta` (all but the text may be missing).

    Raises `StageError`, beginning with `where`, for a row that has no text.
    """
    if config.text_field not in row:
        fields = ", ".join(map(str, row)) or "none"
        raise StageError(
            f"{where} has no field '{config.text_field}'; its fields are: {fields}.",
            "Name the field that holds the text: source.text_field=<name>.",
        )
    text = row[config.text_field]
    if not isinstance(text, str):
        raise StageError(
            f"{where}: the field '{config.text_field}' is {_kind(text)}, not a text.",
            "Name the field that holds the text: source.text_field=<name>; or repair the file.",
        )
    domain = row.get(config.domain_field) if config.domain_field else None
    identity, url = row.get("id"), row.get("url")
    license = row.get(config.license_field) if config.license_field else None
    return Document(
        id=content_id(text) if identity is None or identity == "" else str(identity),
        text=text,
        url=url if isinstance(url, str) and url else None,
        domain=domain_name(str(domain) if domain is not None else "", config.domain),
        meta=_meta(row.get("meta")) | ({} if license is None else {"license": str(license)}),
    )


def content_id(text: str) -> str:
    """A stable id for a text that has none."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def domain_name(name: str, otherwise: str = "web") -> str:
    """A domain's name as it can be a folder and a key of a mixture: other characters than letters, digits and
    `_ . -` become a hyphen."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or otherwise


def _meta(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {"meta": value}
    return dict(value) if isinstance(value, Mapping) else {} if value is None or value == "" else {"meta": value}


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else f"of type {type(value).__name__}")
