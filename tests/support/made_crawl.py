"""Curating a synthetic web, for the tests."""

from pathlib import Path

from maquette.corpus.config import CurationConfig, ExecutorConfig, SourceConfig
from maquette.corpus.curation.curate import Curated, curate
from maquette.corpus.sources.warc import Warc


def settings(web: Path) -> CurationConfig:
    config = CurationConfig()
    config.domains.examples = str(web / "examples.parquet")
    return config


def run(web: Path, root: Path, *, processes: int = 1, config: CurationConfig | None = None) -> Curated:
    return curate(
        Warc(SourceConfig(kind="warc", path=str(web))).shards(), config or settings(web),
        ExecutorConfig(seconds_per_page=1.0), root, enabled=True, processes=processes, limit=None,
    )  # fmt: skip
