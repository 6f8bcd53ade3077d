"""`maquette corpus`: documents read, curated where they come from a crawl, freed of repetition and split."""

from pathlib import Path

from maquette.cli.command_line.config import CorpusStage, CorpusToolStage
from maquette.corpus.build import CorpusSettings, build_corpus


def run(config: CorpusStage) -> Path:
    """Makes the corpus, or finds it made; returns its folder."""
    settings = CorpusSettings(config.source, config.corpus, config.curation, config.executor, Path(config.outputs))
    folder = build_corpus(settings, force=config.force)
    if isinstance(config, CorpusToolStage) and config.explain:
        from maquette.corpus.curation.journal import explain

        print(explain(folder, config.explain, config.curation))
    return folder
