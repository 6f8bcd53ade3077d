"""The second pass over a shard: lines taken out, rules, personal data, unsafe content, quality, domain, signatures.

`filter_document` is a pure function from a document to what becomes of it. A shard has a row for each document written
to `<shard>.journal.parquet`, the texts and band hashes of those that stay to `<shard>.parquet` and `<shard>.npz`.
"""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from maquette.artifacts.files import atomic_file
from maquette.artifacts.reading import load_sealed
from maquette.corpus.config import CurationConfig
from maquette.corpus.curation.classifiers import grams, unsafe_reason
from maquette.corpus.curation.corpus_statistics import CorpusStatistics, load_statistics
from maquette.corpus.curation.journal import entry, write_journal
from maquette.corpus.curation.pii import replace_pii
from maquette.corpus.curation.rules import Rule, clean_lines, features, first_broken, rules
from maquette.corpus.curation.shards import Watch, pages_done
from maquette.corpus.curation.urls import host_of
from maquette.corpus.document import Document, Rejection, read_file, write_documents
from maquette.corpus.hashing import token_buckets, uniform
from maquette.corpus.near_duplicates import document_bands


@dataclasses.dataclass(frozen=True, slots=True)
class Filtered:
    """What became of a document, and all that was measured on the way."""

    result: Document | Rejection
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    pii: dict[str, int] = dataclasses.field(default_factory=dict)
    threshold: float = math.nan

    def row(self, characters: int) -> dict[str, Any]:
        """The document's row of the journal; `characters` of its text before the filters."""
        threshold = self.threshold if isinstance(self.result, Rejection) else math.nan
        return entry(self.result, characters=characters, threshold=threshold, pii=self.pii, scores=self.scores)


def filter_document(
    document: Document, config: CurationConfig, statistics: CorpusStatistics, chosen: list[Rule]
) -> Filtered:
    """Scores, cleans and keeps or rejects one document."""
    document = statistics.lines.strip(document, host_of(document.url))
    document = clean_lines(document, config)
    scores = features(document.text, str(document.meta.get("title", "")))
    broken = first_broken(scores, chosen)
    if broken is not None:
        rejection = Rejection(document, broken.name, scores[broken.feature])
        return Filtered(rejection, scores, {}, broken.threshold)
    pii: dict[str, int] = {}
    if config.pii.replace:
        document, pii = replace_pii(document)
    buckets = token_buckets(document.text)
    scores["surprise"] = float(-statistics.log_shares[buckets].mean()) if buckets.size else 0.0
    meta = dict(document.meta)
    meta.pop("links", None)
    if pii:
        meta["pii"] = pii
    text_grams = grams(document.text) if statistics.models else None

    unsafe = unsafe_reason(document.text, config.safety, statistics.models.get("unsafe"), scores, text_grams)
    if unsafe is not None and config.safety.action == "drop":
        return Filtered(Rejection(document, unsafe[0], unsafe[1]), scores, pii, unsafe[2])
    if unsafe is not None:
        meta["unsafe"] = unsafe[0].partition(": ")[2]
    domain = document.domain
    if (model := statistics.models.get("domains")) is not None and text_grams is not None:
        shares = model.probabilities(text_grams)
        place = int(shares.argmax())
        scores["domain_confidence"] = float(shares[place])
        if shares[place] >= config.domains.confidence:
            domain = model.classes[place]
    if (model := statistics.models.get("quality")) is not None and text_grams is not None:
        scores["quality"] = float(model.probabilities(text_grams)[1])
        meta["quality"] = round(scores["quality"], 4)
    document = dataclasses.replace(document, meta=meta, domain=domain)
    low = _too_low(document, config, scores.get("quality"))
    return Filtered(low or document, scores, pii, config.quality.threshold or math.nan)


def _too_low(document: Document, config: CurationConfig, score: float | None) -> Rejection | None:
    """A rejection by the quality score: below the threshold, or left out by chance (Brown et al. 2020, appendix A)."""
    if score is None:
        return None
    if config.quality.threshold is not None and score < config.quality.threshold:
        return Rejection(document, "quality: threshold", score)
    if config.quality.sample is not None:
        drawn = max(uniform(document.id + "/quality"), 1e-12)
        if drawn ** (-1 / config.quality.sample) - 1 <= 1 - score:
            return Rejection(document, "quality: subsampled", score)
    return None


def filter_shard(number: int, watch: Watch, root: Path, config: CurationConfig) -> None:
    """Filters the documents of a shard in the folders of a `CurationJob`: as many as its limit leaves, but for those
    whose address stood earlier."""
    folder, statistics = root / "filter", root / "statistics"
    known, chosen = load_statistics(statistics), rules(config)
    to_skip = load_sealed(statistics / f"{number:05d}.skip.json")
    passed: list[Document] = []
    journal: list[dict[str, Any]] = []
    bands: list[np.ndarray] = []
    place = 0
    documents = itertools.islice(read_file(root / "extract" / f"{number:05d}.parquet"), to_skip["until"])
    for position, document in enumerate(documents):
        size = len(document.text)
        place += size
        if position in to_skip["duplicates"]:
            verdict = Filtered(Rejection(document, "url duplicate: seen earlier", 1.0))
        elif not watch(position, place):
            verdict = Filtered(Rejection(document, "page: takes too long", float(size)))
        else:
            verdict = filter_document(document, config, known, chosen)
        journal.append(verdict.row(size))
        if isinstance(verdict.result, Document):
            passed.append(verdict.result)
            if config.near_duplicates.bands:
                bands.append(document_bands(verdict.result.text, config.near_duplicates))
    pages_done()
    with atomic_file(folder / f"{number:05d}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, bands=np.array(bands, np.uint64).reshape(len(passed), config.near_duplicates.bands))
    write_journal(folder / f"{number:05d}.journal.parquet", journal)
    with atomic_file(folder / f"{number:05d}.parquet") as temporary:
        write_documents(temporary, passed)
