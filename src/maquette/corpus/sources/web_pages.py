"""From a record's bytes to a page: what the server sent, freed of the archive's and of HTTP's wrapping."""

import dataclasses
import io
import re
from typing import Literal

from maquette.corpus.document import Document, Rejection
from maquette.corpus.sources.records import ArchivePart

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
