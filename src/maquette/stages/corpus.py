"""`maquette corpus`: documents read, cleaned, freed of repetition and split."""

import dataclasses
from pathlib import Path
from typing import Any

from maquette.artifacts.manifest import build
from maquette.artifacts.progress import say
from maquette.corpus.pipeline import make_corpus
from maquette.corpus.report import describe, facts, write_report
from maquette.corpus.sources import open_source
from maquette.corpus.workers import workers
from maquette.stages.config import CorpusStage


def run(config: CorpusStage) -> Path:
    """Makes the corpus, or finds it made; returns its folder."""
    source = open_source(config.source)

    def make(folder: Path) -> dict[str, Any]:
        with workers(config.corpus.workers) as pool:
            summary = make_corpus(source.documents(pool), config.corpus, folder, pool)
        write_report(folder, summary, source.facts(), config.corpus)
        say(describe(summary))
        return facts(summary, source.facts(), config.corpus)

    inputs = source.inputs()
    return build(
        "corpus",
        Path(config.outputs) / "artifacts",
        name=config.corpus.name,
        label=source.label,
        config=_identity(config, with_path=not inputs),
        inputs=inputs,
        make=make,
        force=config.force,
        say=say,
    )


def _identity(config: CorpusStage, *, with_path: bool) -> dict[str, Any]:
    """The settings that make a corpus what it is: not its name, the number of workers, or where equal files lie."""
    source, corpus = dataclasses.asdict(config.source), dataclasses.asdict(config.corpus)
    del corpus["name"], corpus["workers"]
    if not with_path:
        del source["path"]
    return {"source": source, "corpus": corpus}
