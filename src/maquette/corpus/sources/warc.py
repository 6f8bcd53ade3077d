"""The `warc` source: crawl archives (.warc, .warc.gz, .warc.zst, .wet), read in shards that know nothing of each other.

A shard is a plain archive, or a stretch of a compressed one. Which stretches there are depends on the file alone, so
the documents and their order do not depend on the number of workers. A page is what the server sent, freed of the
archive's and of HTTP's wrapping.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from maquette.artifacts.errors import StageError
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document, Rejection
from maquette.corpus.sources import needed
from maquette.corpus.sources.files import FileSource, relative_name
from maquette.corpus.sources.html import decode, extract, links
from maquette.corpus.sources.records import ArchivePart, archive_parts, compression

_HTML = ("text/html", "application/xhtml+xml", "application/xhtml", "application/html")
_LOOKS_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta|div|p)[\s>]", re.IGNORECASE)
_CHUNK_HEADER = re.compile(rb"[0-9a-fA-F]{1,8}\s*(;[^\r\n]*)?\r?\n")
_ADDRESS = re.compile(r"[\x00-\x20<>]+")


@dataclasses.dataclass(frozen=True, slots=True)
class WebPage:
    """`kind` is `html` or `text`; `charset` is what the HTTP header says."""

    id: str
    url: str
    kind: str
    charset: str
    body: bytes


def read_page(part: ArchivePart, archive: str, limit: int) -> WebPage | Rejection | None:
    """The page of a record; None where the record is none (a request, a crawl's own notes, an earlier answer).

    Rejected are records that can't be read, answers other than 200, what is neither HTML nor plain text, and bodies
    of more than `limit` bytes, decompressed: no more than that is ever read.
    """
    identity = f"{archive}:{part.offset}"
    if part.fault:
        return Rejection(Document(identity, ""), f"record: {part.fault}", len(part.data))
    try:
        try:
            return _read(part.data, identity, limit, "transfer")
        except (OSError, ValueError):  # the crawler took the chunks off and kept the header that announces them
            return _read(part.data, identity, limit, "none")
    except (OSError, ValueError, RuntimeError) as error:
        return Rejection(Document(identity, str(error)[:200]), "record: broken", len(part.data))


def _read(
    record_bytes: bytes, identity: str, limit: int, decoding: Literal["transfer", "none"]
) -> WebPage | Rejection | None:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    kinds = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
    record = next(iter(ArchiveIterator(io.BytesIO(record_bytes), record_types=kinds, auto_decode=decoding)), None)
    if record is None:
        return None
    url = _ADDRESS.sub("", record.headers.get("WARC-Target-URI") or "")
    document = Document(identity, "", url or None)
    if url.startswith(("dns:", "metadata:", "urn:", "whois:")):
        return None
    content_type, charset, encoding = record.headers.get("Content-Type") or "", "", ""
    if record.is_http_parsed and record.http_headers is not None:
        status = record.http_headers.status_code
        if status != 200:
            return Rejection(document, "answer: not 200", float(status or 0))
        content_type = record.http_content_type or ""
        charset = record.http_charset or ""
        encoding = (record.http_headers.get("Content-Encoding") or "").strip().lower()
    body = record.reader.read(limit + 1)
    if decoding == "none" and _CHUNK_HEADER.match(body):
        raise ValueError("damaged chunks")
    plain = _decoded(body, encoding, limit)
    if plain is None:
        return Rejection(document, "record: broken", len(record_bytes))
    body = plain
    kind = _kind(content_type, body)
    if kind is None:
        return Rejection(dataclasses.replace(document, text=content_type[:80]), "answer: not a text", len(body))
    if len(body) > limit:
        return Rejection(document, "page: too large", len(record_bytes))
    return WebPage(identity, url, kind, charset, body)


def _kind(content_type: str, body: bytes) -> str | None:
    name = content_type.partition(";")[0].strip().lower()
    if name in _HTML:
        return "html"
    if name == "text/plain" or (not name and body and b"\0" not in body[:1024]):
        return "html" if _LOOKS_HTML.search(body[:512]) else "text"
    if name in ("application/xml", "text/xml", "application/octet-stream") and _LOOKS_HTML.search(body[:1024]):
        return "html"
    return None


def _decoded(body: bytes, encoding: str, limit: int) -> bytes | None:
    """The body without its content encoding, at most `limit` + 1 bytes of it; None where that is damaged.

    Archives often keep the header of an encoding that the crawler has taken off: then the body stays as it is.
    """
    if encoding in ("gzip", "x-gzip") and body[:2] == b"\x1f\x8b":
        return _inflated(body, 31, limit)
    if encoding == "deflate" and body[:1] == b"\x78":
        return _inflated(body, 15, limit)
    if encoding == "br" and not _LOOKS_HTML.search(body[:4096]):
        import brotli

        decoder = brotli.Decompressor()
        try:
            out = decoder.process(body, output_buffer_limit=limit + 1)
        except (brotli.error, TypeError):
            return None
        return bytes(out[: limit + 1])
    return body


def _inflated(body: bytes, window: int, limit: int) -> bytes | None:
    import zlib

    try:
        return zlib.decompressobj(window).decompress(body, limit + 1)
    except zlib.error:
        return None


SHARD_BYTES = 16 << 20
"""Of a compressed archive in one shard: some minutes of work for one core."""


@dataclasses.dataclass(frozen=True, slots=True)
class ArchiveShard:
    """The records that begin in bytes `start` ... `stop` - 1 of an archive, read by `documents`."""

    path: str
    name: str
    start: int
    stop: int
    domain: str
    extractor: str
    limit: int

    @property
    def size(self) -> int:
        """Bytes of the file that belong to this shard."""
        return self.stop - self.start

    def documents(
        self,
        url_filter: Callable[[str], tuple[str, float] | None],
        watch: Callable[[int, int], bool],
        wants_links: Callable[[str], bool],
    ) -> Iterator[Document | Rejection]:
        """The pages as documents, or why a page is none.

        `url_filter(url)` may name a reason (and a value) before the page is parsed. `watch(number, place)` is called
        with each record's number, and how many bytes of the shard lie before it, before the record is parsed; where it
        says no the record is passed over: it was too much for an earlier try. The addresses that pages link to are kept
        in `meta["links"]` where `wants_links(url)` asks for them.
        """
        for number, part in enumerate(archive_parts(Path(self.path), self.start, self.stop)):
            page = read_page(part, self.name, self.limit)
            if page is None or isinstance(page, Rejection):
                if page is not None:
                    yield page
                continue
            reason = url_filter(page.url) if page.url else None
            if reason is not None:
                yield Rejection(Document(page.id, "", page.url, self.domain), *reason)
            elif not watch(number, part.offset - self.start):
                yield Rejection(Document(page.id, "", page.url, self.domain), "page: takes too long", len(page.body))
            else:
                yield self._document(page, with_links=wants_links(page.url))

    def _document(self, page: WebPage, *, with_links: bool) -> Document | Rejection:
        source = decode(page.body, page.charset)
        meta: dict[str, Any] = {"page_bytes": len(page.body)}
        if page.kind == "text":
            return Document(page.id, source, page.url or None, self.domain, meta)
        try:
            extracted = extract(source, self.extractor)
        except StageError:
            raise
        except Exception as error:  # whatever a parser makes of the web's worst: one page, not the run
            return Rejection(Document(page.id, repr(error)[:200], page.url), "page: can't be parsed", len(page.body))
        if extracted.title:
            meta["title"] = extracted.title
        if with_links:
            meta["links"] = links(source)
        return Document(page.id, extracted.text, page.url or None, self.domain, meta)


class Warc(FileSource):
    """All archives below a folder (or one file)."""

    suffixes = (".warc", ".wet", ".arc")
    what = "crawl archive"

    def __init__(self, config: SourceConfig) -> None:
        for package in ("fastwarc", "resiliparse"):
            needed(package, "a crawl (source=warc, synthetic_web)")
        super().__init__(config)

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"extractor": self._config.extractor}

    def shards(self) -> list[ArchiveShard]:
        """All shards, in the order of the files."""
        config, shards_of_files = self._config, []
        for file in self._files:
            size, name = file.stat().st_size, relative_name(file, self._root)
            step = SHARD_BYTES if compression(file) else max(size, 1)
            for start in range(0, size, step):
                stop, limit = min(start + step, size), config.max_page_bytes
                shards_of_files.append(
                    ArchiveShard(str(file), name, start, stop, config.domain, config.extractor, limit)
                )
        return shards_of_files

    def _documents(self) -> Iterator[Document]:
        """The pages that can be read, without curation and one after the other."""
        for shard in self.shards():
            for document in shard.documents(lambda url: None, lambda number, place: True, lambda url: False):
                if isinstance(document, Document):
                    yield document
