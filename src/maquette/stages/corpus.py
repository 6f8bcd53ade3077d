"""`maquette corpus`: documents read, curated where they come from a crawl, freed of repetition and split."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.files import digest
from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.corpus.config import CorpusConfig
from maquette.corpus.pipeline import CLEAN, judge_on, make_corpus
from maquette.corpus.report import describe, facts, write_report
from maquette.corpus.sources import open_source
from maquette.corpus.sources.base import Source
from maquette.corpus.sources.files import digest_files, list_files
from maquette.corpus.workers import workers
from maquette.stages.config import CorpusStage, CorpusToolStage


def run(config: CorpusStage) -> Path:
    """Makes the corpus, or finds it made; returns its folder."""
    config, web = _with_synthetic_web(config)
    source = open_source(config.source)
    inputs = source.inputs()
    identity = _identity(config, with_path=not inputs)
    curated = curates(config)
    make = functools.partial(_make_curated, config, source, digest([identity, inputs]), web) if curated else (
        functools.partial(_make, config, source)
    )  # fmt: skip
    folder = build(
        "corpus",
        Path(config.outputs) / "artifacts",
        name=config.corpus.name,
        label=source.label if web is None else "synthetic_web",
        config=identity,
        inputs=inputs,
        make=make,
        force=config.force,
        say=say,
    )
    if isinstance(config, CorpusToolStage) and config.explain:
        from maquette.corpus.curation.journal import explain

        print(explain(folder, config.explain, config.curation))
    return folder


def curates(config: CorpusStage) -> bool:
    """Whether the documents go through the passes of curation: pages of a crawl always do, if only to be read."""
    return config.source.is_crawl or bool(config.curation.enabled)


def _make(config: CorpusStage, source: Source, folder: Path) -> dict[str, Any]:
    with workers(config.corpus.workers) as pool:
        summary = make_corpus(source.documents(pool), _held_out(config.corpus), folder, pool)
    write_report(folder, summary, source.facts(), config.corpus)
    say(describe(summary))
    return facts(summary, source.facts(), config.corpus) | _judged(config, folder, None)


def _held_out(config: CorpusConfig) -> CorpusConfig:
    """Nothing is held out for validation where other text is judged on."""
    return config if config.judge is None else dataclasses.replace(config, validation=0.0)


def _judged(config: CorpusStage, folder: Path, web: Path | None) -> dict[str, Any]:
    if config.corpus.judge is None:
        return {}
    if config.corpus.judge != CLEAN:
        path = Path(config.corpus.judge).expanduser()
    elif web is None:
        raise ConfigError(
            "corpus.judge=clean is of source=synthetic_web.", "Give a JSONL or Parquet file of clean documents."
        )
    else:
        path = web / f"{CLEAN}.parquet"
    return {"judge": judge_on(path, folder)}


def _make_curated(
    config: CorpusStage, source: Source, fingerprint: str, web: Path | None, folder: Path
) -> dict[str, Any]:
    from maquette.corpus.curation.curate import curate
    from maquette.corpus.curation.curation_report import finish_journal, write_curation_report
    from maquette.corpus.curation.shards import store
    from maquette.corpus.synthetic_web.truth import measure
    from maquette.corpus.synthetic_web.web import read_truth

    enabled = config.curation.enabled is not False
    work = Path(config.outputs) / "curation" / f"{source.label}-{fingerprint[:8]}"
    shards = getattr(source, "shards", None)
    if shards is None:
        with workers(config.corpus.workers) as pool:
            found = store(source.documents(pool), work / "source")
    else:
        found = shards()
    result = curate(
        found, config.curation, config.executor, work, enabled=enabled, processes=config.corpus.workers,
        limit=config.source.limit if web is None else None,
    )  # fmt: skip
    with workers(config.corpus.workers) as pool:
        summary = make_corpus(result.documents(), _held_out(config.corpus), folder, pool)
    write_report(folder, summary, source.facts(), config.corpus)
    known = facts(summary, source.facts(), config.corpus) | {"curation": result.facts}
    if result.selection is not None:
        journal = finish_journal(result.selection.journal, folder)
        truth = None if web is None else measure(journal, read_truth(web), result.documents())
        known["curation"] = write_curation_report(folder, journal, config.curation, result.facts, truth)
    known |= _judged(config, folder, web)
    say(describe(summary))
    result.job.remove()
    return known


def _with_synthetic_web(config: CorpusStage) -> tuple[CorpusStage, Path | None]:
    """The settings by which a synthetic web is read like any crawl, and its folder; generated where missing."""
    if config.source.kind != "synthetic_web":
        return config, None
    from maquette.corpus.synthetic_web.web import GOOD_PAGES, VERSION, make_web

    pages = config.source.limit or GOOD_PAGES

    def make(folder: Path) -> dict[str, Any]:
        with workers(config.corpus.workers) as pool:
            return make_web(folder, pool, pages)

    web = build(
        "synthetic_web", Path(config.outputs) / "artifacts", name=None, label=f"synthetic_web-{pages}",
        config={"pages": pages, "version": VERSION}, inputs={}, make=make, say=say,
    )  # fmt: skip
    source = dataclasses.replace(config.source, kind="warc", path=str(web))
    domains = config.curation.domains
    if domains.examples is None:
        domains = dataclasses.replace(domains, examples=str(web / "examples.parquet"))
    return dataclasses.replace(
        config, source=source, curation=dataclasses.replace(config.curation, domains=domains)
    ), web


def _identity(config: CorpusStage, *, with_path: bool) -> dict[str, Any]:
    """The settings that make a corpus what it is: not its name, the number of workers, the engine, or where equal
    files lie. What a source does not know of is left out, so that its corpora keep their names."""
    source, corpus = dataclasses.asdict(config.source), dataclasses.asdict(config.corpus)
    del corpus["name"], corpus["workers"]
    if corpus["deduplicate"] == CorpusConfig().deduplicate:
        del corpus["deduplicate"]
    judge = corpus.pop("judge")
    if judge is not None:
        corpus["judge"] = judge if judge == CLEAN else _content(judge)
    if not config.source.is_crawl:
        del source["extractor"], source["max_page_bytes"]
    if not with_path:
        del source["path"]
    identity = {"source": source, "corpus": corpus}
    if curates(config):
        identity["curation"] = chosen = dataclasses.asdict(config.curation)
        del chosen["label"]
        chosen["url"]["block_lists"] = [_content(path) for path in chosen["url"]["block_lists"]]
        for part in ("quality", "domains"):
            chosen[part]["examples"] = _content(chosen[part]["examples"])
    return identity


def _content(path: str | None) -> str | None:
    """What lies at a path counts, not the path."""
    return (
        None
        if path is None
        else digest_files(list_files(Path(path).expanduser(), None, "curation"), Path(path).expanduser())
    )
