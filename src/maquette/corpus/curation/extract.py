"""The first pass over a shard: pages read, filtered by address and language, and what the corpus must know of them.

Languages are identified by py3langid's naive Bayes model (97 languages, inside its wheel).

Writes `<shard>.parquet` with the documents that go on, `<shard>.journal.parquet` with those that do not, and
`<shard>.npz` with what is decided over all shards: addresses, lines by host, counts of tokens.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.files import atomic_file
from maquette.corpus.config import CurationConfig, LanguageConfig
from maquette.corpus.curation.corpus_statistics import line_hashes
from maquette.corpus.curation.journal import entry, write_journal
from maquette.corpus.curation.shards import Shard, Watch, pages_done
from maquette.corpus.curation.urls import block_list, host_of, is_below, normalize_url
from maquette.corpus.document import Document, Rejection, normalize, write_documents
from maquette.corpus.hashing import TOKEN_BUCKETS, Hashes, text_hash, token_buckets
from maquette.corpus.sources import needed

UNSAFE = ("gambling", "adult", "drugs", "violence", "malware", "phishing")
"""Categories of block lists whose pages teach the classifier of unsafe content what such pages look like."""

_MOST_CLASSIFIER_EXAMPLES = 100  # blocked pages of a shard that are parsed for that
_SAMPLE = 600  # characters from each of three places tell a language: more changes no answer and costs time


@dataclasses.dataclass(slots=True)
class _Statistics:
    """What a shard tells the others. `urls` (D,), `lines` and `line_host` (L,): each line of a page once."""

    urls: list[int] = dataclasses.field(default_factory=list)
    lines: list[Hashes] = dataclasses.field(default_factory=list)
    line_host: list[NDArray[np.int64]] = dataclasses.field(default_factory=list)
    hosts: dict[str, int] = dataclasses.field(default_factory=dict)
    host_pages: list[int] = dataclasses.field(default_factory=list)
    tokens: NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(TOKEN_BUCKETS, np.int64))

    def add(self, document: Document) -> None:
        key = normalize_url(document.url or "")
        self.urls.append(text_hash(key) if key else 0)
        host = host_of(document.url)
        number = self.hosts.setdefault(host, len(self.hosts))
        if number == len(self.host_pages):
            self.host_pages.append(0)
        self.host_pages[number] += 1
        hashes = np.unique(line_hashes(document.text, host)[1])
        hashes = hashes[hashes != 0] if host else hashes[:0]
        self.lines.append(hashes)
        self.line_host.append(np.full(hashes.size, number, np.int64))
        self.tokens += np.bincount(token_buckets(document.text), minlength=TOKEN_BUCKETS)

    def save(self, path: Path) -> None:
        empty = np.empty(0, np.uint64)
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                urls=np.array(self.urls, np.uint64),
                lines=np.concatenate([*self.lines, empty]),
                line_host=np.concatenate([*self.line_host, empty.astype(np.int64)]),
                hosts=np.array(list(self.hosts), np.str_),
                host_pages=np.array(self.host_pages, np.int64),
                tokens=self.tokens,
            )


def extract_shard(
    shard: Shard, number: int, config: CurationConfig, folder: Path, watch: Watch, *, enabled: bool, limit: int | None
) -> None:
    """Reads a shard and writes its files; without `enabled` every page that has text is kept."""
    documents: list[Document] = []
    journal: list[dict[str, Any]] = []
    blocked: list[Document] = []
    statistics = _Statistics()
    classifier_examples: dict[str, str] = {}
    blocks = block_list(config.url) if enabled else None
    learns = enabled and config.safety.action != "off" and config.safety.classifier is not None

    def url_filter(url: str) -> tuple[str, float] | None:
        if blocks is None or (category := blocks.category(url)) is None:
            return None
        if learns and category in UNSAFE and len(classifier_examples) < _MOST_CLASSIFIER_EXAMPLES:
            classifier_examples[url] = category
            return None
        return f"url: {category}", 1.0

    def wants_links(url: str) -> bool:
        host = host_of(url)
        return enabled and any(is_below(host, domain) for domain in config.quality.cited_by)

    for document in shard.documents(url_filter, watch, wants_links):
        if isinstance(document, Document) and document.url in classifier_examples:
            blocked.append(document)
            document = Rejection(document, f"url: {classifier_examples[document.url or '']}", 1.0)
        result = document if isinstance(document, Rejection) else normalize(document)
        if isinstance(result, Document) and not result.text.strip():
            result = Rejection(result, "page: no text", 0.0)
        if isinstance(result, Document) and enabled:
            result = check_language(result, config.language)
        if isinstance(result, Rejection):
            journal.append(entry(result, characters=len(result.document.text)))
            continue
        statistics.add(result)
        documents.append(result)
        if limit is not None and len(documents) >= limit:
            break
    pages_done()
    statistics.save(folder / f"{number:05d}.npz")
    write_journal(folder / f"{number:05d}.journal.parquet", journal)
    for name, group in (("blocked", blocked), ("", documents)):
        path = folder / (f"{number:05d}.{name}.parquet" if name else f"{number:05d}.parquet")
        with atomic_file(path) as temporary:  # the documents last: they say that the shard is done
            write_documents(temporary, group)


@functools.cache
def _identifier() -> Any:
    what, otherwise = "Language identification", "; or keep all languages: curation.language.keep=[]"
    langid: Any = needed("py3langid.langid", what, otherwise)
    model = Path(langid.__file__).parent / langid.MODEL_FILE
    return langid.LanguageIdentifier.from_modelpath(model, norm_probs=True)


def language_of(text: str) -> tuple[str, float]:
    """The language's ISO 639-1 code and its probability; of long texts the beginning, middle and end are looked at."""
    if len(text) > 3 * _SAMPLE:
        middle = len(text) // 2
        text = f"{text[:_SAMPLE]} {text[middle : middle + _SAMPLE]} {text[-_SAMPLE:]}"
    name, probability = _identifier().classify(text)
    return str(name), float(probability)


def check_language(document: Document, config: LanguageConfig) -> Document | Rejection:
    """The document with its language in `meta`, or a rejection where that is not to be kept, or its probability low."""
    name, probability = language_of(document.text)
    document = dataclasses.replace(
        document, meta=document.meta | {"language": name, "language_confidence": round(probability, 4)}
    )
    if config.keep and name not in config.keep:
        return Rejection(document, "language: not in keep", probability)
    if config.keep and probability < config.confidence:
        return Rejection(document, "language: low confidence", probability)
    return document
