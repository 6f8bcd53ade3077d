"""Between the passes: what is decided over all shards, and the models that are learned from them.

Which pages have an address that stands earlier; which lines a host repeats from page to page (headers, footers, menus:
found by hashing lines, over all its pages); how common each token is; models of quality, of unsafe content and of
domains. The second pass reads it from one folder.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maquette.artifacts.errors import StageError
from maquette.artifacts.files import atomic_file, write_json
from maquette.artifacts.reading import load_arrays
from maquette.corpus.config import BoilerplateLinesConfig, CurationConfig
from maquette.corpus.curation.classifiers import FEWEST_EXAMPLES, LinearModel, Training, train
from maquette.corpus.curation.urls import host_of, is_below, normalize_url
from maquette.corpus.document import Document, read_file
from maquette.corpus.hashing import (
    TOKEN_BUCKETS,
    Hashes,
    characters,
    repeats,
    sequence_hashes,
    tokenize,
    uniform,
    without_digits,
)
from maquette.corpus.sources import read_examples

_LONGEST = 200  # characters: what is longer is a text, and paragraph deduplication's to judge


def line_hashes(text: str, host: str) -> tuple[list[str], Hashes]:
    """The lines of a text and a hash of each with its host, `(lines,)`; 0 for blank and long ones.

    Two lines are equal when their tokens are: digits count as one, so `Page 3 of 9` and `Page 4 of 9` are equal.
    """
    lines = text.split("\n")
    # One token stream for the whole text, cut at the lines' ends.
    points = characters(text)
    starts, tokens = tokenize(without_digits(points))
    if starts.size == 0:
        return lines, np.zeros(len(lines), np.uint64)
    ends = np.append(np.flatnonzero(points == ord("\n")), points.size)
    begins = np.append(0, ends + 1)
    lengths = np.diff(begins) - 1
    first = np.searchsorted(starts, begins)
    filled = np.flatnonzero(np.diff(first))
    hashes = np.zeros(len(lines), np.uint64)
    hashes[filled] = sequence_hashes(tokens, first[filled]) ^ _host_hash(host)
    hashes[lengths > _LONGEST] = 0
    return lines, hashes


@functools.lru_cache(maxsize=1024)
def _host_hash(host: str) -> np.uint64:
    _, tokens = tokenize(characters(host or "-"))
    return np.uint64(sequence_hashes(tokens, np.zeros(1, np.int64))[0])


@dataclasses.dataclass(frozen=True, slots=True)
class BoilerplateLines:
    """Hashes (with their hosts) of the lines to take out, sorted."""

    hashes: Hashes

    def strip(self, document: Document, host: str) -> Document:
        """The document without these lines."""
        if self.hashes.size == 0 or not host:
            return document
        lines, hashes = line_hashes(document.text, host)
        place = np.minimum(np.searchsorted(self.hashes, hashes), self.hashes.size - 1)
        repeated = (self.hashes[place] == hashes) & (hashes != 0)
        if not repeated.any():
            return document
        text_left = "\n".join(line for line, gone in zip(lines, repeated.tolist(), strict=True) if not gone)
        return dataclasses.replace(document, text=text_left.strip("\n"))


def repeated_lines(
    hashes: Hashes, host: NDArray[np.int64], pages: NDArray[np.int64], config: BoilerplateLinesConfig
) -> Hashes:
    """Which lines to take out.

    `hashes` (L,) has each line of each page once, `host` (L,) the number of its host, `pages` (hosts,) the pages of
    each host. A line goes where it stands on `config.pages` pages and on `config.share` of its host's.
    """
    if config.pages is None or hashes.size == 0:
        return np.empty(0, np.uint64)
    distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    enough = np.maximum(config.pages, config.share * pages[host[first]])
    chosen: Hashes = distinct[(counts >= enough) & (distinct != 0)]
    return chosen


_MOST_EXAMPLES = 4000  # of each class
_MODELS = ("quality", "unsafe", "domains")


@dataclasses.dataclass(frozen=True)
class CorpusStatistics:
    """What the second pass knows of the corpus; `models` by name, where there were examples enough."""

    lines: BoilerplateLines
    log_shares: NDArray[np.float64]
    models: dict[str, LinearModel]


@functools.lru_cache(maxsize=1)
def load_statistics(folder: Path) -> CorpusStatistics:
    """Reads what `write_statistics` wrote."""
    arrays = load_arrays(folder / "corpus.npz")
    models = {name: LinearModel.load(folder / f"{name}.npz") for name in _MODELS if (folder / f"{name}.npz").exists()}
    return CorpusStatistics(BoilerplateLines(arrays["lines"]), arrays["log_shares"], models)


def write_statistics(extract: Path, shards: list[int], folder: Path, config: CurationConfig) -> None:
    """Reads the statistics of all `shards` and writes what the second pass needs; `report.json` is written last.

    Raises `StageError` where examples that the config names can't be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines, tokens = _corpus_lines(extract, shards, config)
    log_shares = np.log((tokens + 0.5) / (tokens.sum() + 0.5 * TOKEN_BUCKETS))
    with atomic_file(folder / "corpus.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, lines=lines, log_shares=log_shares)
    report: dict[str, Any] = {"repeated_lines": int(lines.size), "tokens": int(tokens.sum())}
    for name, training in (
        ("quality", _train_quality(extract, shards, config)),
        ("unsafe", _train_unsafe(extract, shards, config)),
        ("domains", _train_domains(config)),
    ):
        (folder / f"{name}.npz").unlink(missing_ok=True)
        if training is not None:
            training.model.save(folder / f"{name}.npz")
            report[name] = training.report()
    write_json(folder / "report.json", report)


def duplicate_addresses(extract: Path, shards: list[int]) -> dict[int, NDArray[np.bool_]]:
    """Of each shard's documents, whether their address stands earlier in the corpus."""
    urls = [_load(extract, number)["urls"] for number in shards]
    whole = np.concatenate([*urls, np.empty(0, np.uint64)])
    same = repeats(whole)
    later = np.zeros(whole.size, np.bool_)
    later[same.positions[same.is_later]] = True
    later &= whole != 0
    pieces = np.split(later, np.cumsum([one.size for one in urls])[:-1]) if urls else []
    return dict(zip(shards, pieces, strict=True))


def _load(extract: Path, number: int) -> dict[str, Any]:
    return load_arrays(extract / f"{number:05d}.npz")


def _corpus_lines(extract: Path, shards: list[int], config: CurationConfig) -> tuple[Hashes, NDArray[np.int64]]:
    """The lines to take out, and how often each token stands in the corpus."""
    hosts: dict[str, int] = {}
    pages: list[int] = []
    lines, line_hosts = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    tokens = np.zeros(TOKEN_BUCKETS, np.int64)
    for number in shards:
        extracted = _load(extract, number)
        place = np.array([hosts.setdefault(name, len(hosts)) for name in extracted["hosts"].tolist()], np.int64)
        pages += [0] * (len(hosts) - len(pages))
        for host, count in zip(place.tolist(), extracted["host_pages"].tolist(), strict=True):
            pages[host] += count
        lines.append(extracted["lines"])
        line_hosts.append(place[extracted["line_host"]] if place.size else extracted["line_host"])
        tokens += extracted["tokens"]
    chosen = repeated_lines(
        np.concatenate(lines), np.concatenate(line_hosts), np.array(pages, np.int64), config.boilerplate_lines
    )
    return chosen, tokens


def _documents(extract: Path, shards: list[int]) -> Iterator[Document]:
    for number in shards:
        yield from read_file(extract / f"{number:05d}.parquet")


def _train_quality(extract: Path, shards: list[int], config: CurationConfig) -> Training | None:
    """Reference-like documents against random pages of the crawl, as they come."""
    quality = config.quality
    positive: list[str] = []
    cited: set[str] = set()
    if quality.examples is not None:
        positive = [document.text for document in _examples(quality.examples, "curation.quality.examples")]
    else:
        for document in _documents(extract, shards):
            host = host_of(document.url)
            if any(is_below(host, domain) for domain in quality.cited_by):
                cited |= {normalize_url(link) for link in document.meta.get("links", ()) if host_of(link) != host}
    cited.discard("")
    urls = ((document, normalize_url(document.url or "")) for document in _documents(extract, shards))
    positive += [document.text for document, url in urls if url in cited]
    others = _random(extract, shards, lambda document: normalize_url(document.url or "") not in cited)
    return _train_against(others, "random", positive, "reference")


def _train_unsafe(extract: Path, shards: list[int], config: CurationConfig) -> Training | None:
    """Pages that block lists name against the crawl's others."""
    if config.safety.action == "off" or config.safety.classifier is None:
        return None
    unsafe = [document.text for number in shards for document in read_file(extract / f"{number:05d}.blocked.parquet")]
    others = _random(extract, shards, lambda document: True)
    return _train_against(others, "safe", [text for text in unsafe if text.strip()], "unsafe")


def _random(extract: Path, shards: list[int], admits: Callable[[Document], bool]) -> Iterator[str]:
    """The texts of documents as if they were drawn, about twice as many as are needed."""
    total = sum(_load(extract, number)["urls"].size for number in shards)
    share = 2 * _MOST_EXAMPLES / max(total, 1)
    return (one.text for one in _documents(extract, shards) if uniform(one.id) < share and admits(one))


def _train_against(others: Iterator[str], other: str, positive: list[str], name: str) -> Training | None:
    texts, positive = list(itertools.islice(others, _MOST_EXAMPLES)), positive[:_MOST_EXAMPLES]
    return train([*texts, *positive], [other] * len(texts) + [name] * len(positive))


def _train_domains(config: CurationConfig) -> Training | None:
    if config.domains.examples is None:
        return None
    examples = _examples(config.domains.examples, "curation.domains.examples")
    counts = Counter(one.domain for one in examples)
    examples = [one for one in examples if counts[one.domain] >= FEWEST_EXAMPLES]
    training = train([one.text for one in examples], [one.domain for one in examples])
    if training is None:
        raise StageError(
            f"{config.domains.examples} has too few documents to learn domains from.",
            f"Give at least {FEWEST_EXAMPLES} documents of each of two domains or more, with the field `domain`.",
        )
    return training


def _examples(path: str, key: str) -> list[Document]:
    by_domain: dict[str, list[Document]] = {}
    for document in read_examples(path, key):
        by_domain.setdefault(document.domain, []).append(document)
    return [document for name in sorted(by_domain) for document in by_domain[name][:_MOST_EXAMPLES]]
