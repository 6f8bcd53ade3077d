"""The corpus as an artifact: which settings make it what it is, and how it is made from them."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.manifest import build, read_manifest
from maquette.artifacts.progress import say
from maquette.corpus.config import CorpusConfig, CurationConfig, ExecutorConfig, SourceConfig
from maquette.corpus.data_card import license_counts, write_data_card
from maquette.corpus.document import Document
from maquette.corpus.licenses import check_licenses, filtered
from maquette.corpus.pipeline import CLEAN, make_corpus, replace_validation
from maquette.corpus.report import describe, write_report
from maquette.corpus.sources import Source, open_source
from maquette.corpus.sources.files import digest_files, list_files
from maquette.corpus.sources.installed import Installed
from maquette.corpus.workers import Workers, workers


@dataclasses.dataclass(frozen=True)
class CorpusSettings:
    """All that a corpus is made from and by; `web` is the folder of the synthetic web that it is read from, if any."""

    source: SourceConfig
    corpus: CorpusConfig
    curation: CurationConfig
    executor: ExecutorConfig
    outputs: Path
    web: Path | None = None

    @property
    def curates(self) -> bool:
        """Whether the documents go through the passes of curation: pages of a crawl always do, if only to be read."""
        return self.source.is_crawl or bool(self.curation.enabled)


def build_corpus(settings: CorpusSettings, *, force: bool) -> Path:
    """Makes the corpus, or finds it made; returns its folder."""
    check_licenses(settings.corpus.licenses)
    settings = _with_synthetic_web(settings)
    if settings.corpus.validation_source == CLEAN and settings.web is None:
        raise ConfigError(
            "corpus.validation_source=clean needs source=synthetic_web.",
            "Give a JSONL or Parquet file of clean documents.",
        )
    source = open_source(settings.source)
    inputs = source.inputs()
    identity = _identity(settings, with_path=not inputs)
    if settings.curates:
        make = functools.partial(_make_curated, settings, source, digest([identity, inputs]))
    else:
        make = functools.partial(_make_splits, settings, source, source.documents)
    folder = build(
        "corpus", settings.outputs / "artifacts", name=settings.corpus.name, key="corpus.name",
        label=source.label if settings.web is None else "synthetic_web", config=identity, inputs=inputs, make=make,
        force=force, say=say,
    )  # fmt: skip
    if isinstance(source, Installed) and (changes := source.changes(read_manifest(folder).facts["source"])):
        say(f"{folder.name} stays as it was read, from other packages: {changes} (force=true reads again)")
    return folder


def _make_splits(
    settings: CorpusSettings, source: Source, documents: Callable[[Workers], Iterable[Document]], folder: Path
) -> dict[str, Any]:
    """The split files and the report; returns the manifest's facts."""
    config, chosen = settings.corpus, settings.corpus.validation_source
    packages = source.licenses() if isinstance(source, Installed) else {}
    unlicensed = Counter[str]()
    if chosen is not None:  # nothing is held out where validation is on other text
        config = dataclasses.replace(config, validation=0.0)
    with workers(config.workers) as pool:
        read = documents(pool)
        if config.licenses:
            read = filtered(read, config.licenses, packages, unlicensed)
        made = make_corpus(read, config, folder, pool)
    known = {"source": source.facts(), **made}
    write_report(folder, known)
    say(describe(known))
    if unlicensed:
        say(f"corpus.licenses left out {unlicensed.total():,} documents")
    known["licenses"] = license_counts(folder, packages)
    write_data_card(folder, known | {"unlicensed": dict(unlicensed.most_common())}, packages, config.licenses)
    if chosen is not None:
        clean = settings.web / f"{CLEAN}.parquet" if settings.web is not None and chosen == CLEAN else None
        known["validation_source"] = replace_validation(clean or Path(chosen).expanduser(), folder)
    return known


def _make_curated(settings: CorpusSettings, source: Source, fingerprint: str, folder: Path) -> dict[str, Any]:
    from maquette.corpus.curation.curate import curate
    from maquette.corpus.curation.curation_report import finish_journal, write_curation_report
    from maquette.corpus.curation.shards import store
    from maquette.corpus.synthetic_web.web import measure, read_truth

    enabled = settings.curation.enabled is not False
    work = settings.outputs / "curation" / f"{source.label}-{fingerprint[:8]}"
    shards = getattr(source, "shards", None)
    if shards is None:
        with workers(settings.corpus.workers) as pool:
            stored = store(source.documents(pool), work / "source")
    else:
        stored = shards()
    result = curate(
        stored, settings.curation, settings.executor, work, enabled=enabled, processes=settings.corpus.workers,
        limit=settings.source.limit if settings.web is None else None,
    )  # fmt: skip
    known = _make_splits(settings, source, lambda _: result.documents(), folder) | {"curation": result.facts}
    if result.selection is not None:
        journal = finish_journal(result.selection.journal, folder)
        truth = None
        if settings.web is not None:
            truth = measure(journal, read_truth(settings.web), result.documents())
        known["curation"] = write_curation_report(folder, journal, settings.curation, result.facts, truth)
    result.job.remove()
    return known


def _with_synthetic_web(settings: CorpusSettings) -> CorpusSettings:
    """The settings by which a synthetic web is read like any crawl; it is generated where it is missing."""
    if settings.source.kind != "synthetic_web":
        return settings
    from maquette.corpus.synthetic_web.web import GOOD_PAGES, VERSION, make_web

    pages = settings.source.limit or GOOD_PAGES

    def make(folder: Path) -> dict[str, Any]:
        with workers(settings.corpus.workers) as pool:
            return make_web(folder, pool, pages)

    web = build(
        "synthetic_web", settings.outputs / "artifacts", name=None, label=f"synthetic_web-{pages}",
        config={"pages": pages, "version": VERSION}, inputs={}, make=make, say=say,
    )  # fmt: skip
    source = dataclasses.replace(settings.source, kind="warc", path=str(web))
    domains = settings.curation.domains
    if domains.examples is None:
        domains = dataclasses.replace(domains, examples=str(web / "examples.parquet"))
    curation = dataclasses.replace(settings.curation, domains=domains)
    return dataclasses.replace(settings, source=source, curation=curation, web=web)


def _identity(settings: CorpusSettings, *, with_path: bool) -> dict[str, Any]:
    """The settings that make a corpus what it is: not its name, the number of workers, the engine, or where equal
    files lie. What a source does not know of is left out, so that its corpora keep their names."""
    source, corpus = dataclasses.asdict(settings.source), dataclasses.asdict(settings.corpus)
    del corpus["name"], corpus["workers"]
    if corpus["deduplicate"] == CorpusConfig().deduplicate:
        del corpus["deduplicate"]
    validation = corpus.pop("validation_source")
    if validation is not None:
        corpus["validation_source"] = validation if validation == CLEAN else _content(validation)
    if source["license_field"] is None:
        del source["license_field"]
    if not corpus["licenses"]:
        del corpus["licenses"]
    if not settings.source.is_crawl:
        del source["extractor"], source["max_page_bytes"]
    if not with_path:
        del source["path"]
    identity = {"source": source, "corpus": corpus}
    if settings.curates:
        identity["curation"] = chosen = dataclasses.asdict(settings.curation)
        del chosen["label"]
        chosen["url"]["block_lists"] = [_content(path) for path in chosen["url"]["block_lists"]]
        for part in ("quality", "domains"):
            chosen[part]["examples"] = _content(chosen[part]["examples"])
    return identity


def _content(path: str | None) -> str | None:
    """What lies at a path counts, not the path."""
    if path is None:
        return None
    root = Path(path).expanduser()
    return digest_files(list_files(root, None, "curation"), root)
