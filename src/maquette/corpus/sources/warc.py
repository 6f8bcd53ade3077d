"""The `warc` source: crawl archives (.warc, .warc.gz, .warc.zst, .wet), read in shards that know nothing of each other.

A shard is a plain archive, or a stretch of a compressed one. Which stretches there are depends on the file alone, so
the documents and their order do not depend on the number of workers.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import StageError
from maquette.corpus.config import SourceConfig
from maquette.corpus.document import Document, Rejection
from maquette.corpus.sources import needed
from maquette.corpus.sources.files import FileSource, relative_name
from maquette.corpus.sources.html import decode, extract, links
from maquette.corpus.sources.records import archive_parts, compression
from maquette.corpus.sources.web_pages import WebPage, read_page

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
            needed(package, "source=warc")
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
